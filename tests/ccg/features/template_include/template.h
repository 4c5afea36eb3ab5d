#define GLUE_(a, s) a##s
#define GLUE(a, s) GLUE_(a, s)

static int GLUE(load_, SUFFIX)(void) { return 0; }

#undef SUFFIX
#undef GLUE
#undef GLUE_
