static int twin(void) { return 1; }

int second(void) { return twin(); }
