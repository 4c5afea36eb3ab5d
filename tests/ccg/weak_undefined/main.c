__attribute__((weak)) int absent(void);
__attribute__((weak)) int present(void);

int main(void)
{
    int result = 0;

    if (absent) {
        result += absent();
    }
    if (present) {
        result += present();
    }
    return result;
}
