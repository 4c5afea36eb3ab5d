int main(void)
{
    extern int far_away(int x);
    int result = far_away(0);

    {
        int further_down(int x);

        result += further_down(0);
    }
    return result;
}

int further_down(int x)
{
    return x;
}
