int second(void);
static int twin(void) { return 1; }

int main(void) { return twin() - second(); }
