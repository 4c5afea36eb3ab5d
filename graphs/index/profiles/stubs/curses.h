/* What QEMU uses of curses, for machines that lack it: names and types, so that its calls can be read. */
#ifndef STUDYKVM_CURSES_H
#define STUDYKVM_CURSES_H
#include <stdio.h>

typedef unsigned chtype;
typedef struct _win_st WINDOW;
extern WINDOW *stdscr;
extern int LINES, COLS;

enum { OK = 0, ERR = -1, FALSE = 0, TRUE = 1 };
enum { COLOR_BLACK, COLOR_RED, COLOR_GREEN, COLOR_YELLOW, COLOR_BLUE, COLOR_MAGENTA, COLOR_CYAN, COLOR_WHITE };
enum {
    KEY_DOWN = 0402, KEY_UP, KEY_LEFT, KEY_RIGHT, KEY_HOME, KEY_BACKSPACE, KEY_F0, KEY_DC = 0512, KEY_IC,
    KEY_NPAGE = 0522, KEY_PPAGE, KEY_ENTER = 0527, KEY_BTAB = 0541, KEY_END = 0550
};
#define KEY_RESIZE 0632
#define KEY_F(n) (KEY_F0 + (n))
#define COLOR_PAIR(n) ((n) << 8)

WINDOW *initscr(void);
WINDOW *newpad(int lines, int columns);
int clear(void), endwin(void), erase(void), getch(void), noecho(void), nonl(void), raw(void), refresh(void);
int start_color(void);
int curs_set(int visible), delwin(WINDOW *w), init_pair(short pair, short ink, short paper);
int intrflush(WINDOW *w, int on), keypad(WINDOW *w, int on), nodelay(WINDOW *w, int on), scrollok(WINDOW *w, int on);
int move(int y, int x), mvwaddchnstr(WINDOW *w, int y, int x, const chtype *text, int n);
int pnoutrefresh(WINDOW *pad, int py, int px, int sy, int sx, int ly, int lx), wnoutrefresh(WINDOW *w);
int resize_term(int lines, int columns);
#endif
