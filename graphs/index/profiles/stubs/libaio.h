/* What QEMU uses of libaio, for machines that lack it: names and types, so that its calls can be read. */
#ifndef STUDYKVM_LIBAIO_H
#define STUDYKVM_LIBAIO_H
#include <string.h>
#include <sys/types.h>
#include <time.h>

typedef struct io_context *io_context_t;
typedef enum io_iocb_cmd {
    IO_CMD_PREAD = 0, IO_CMD_PWRITE = 1, IO_CMD_FSYNC = 2, IO_CMD_FDSYNC = 3, IO_CMD_POLL = 5, IO_CMD_NOOP = 6,
    IO_CMD_PREADV = 7, IO_CMD_PWRITEV = 8
} io_iocb_cmd_t;

struct iovec;
struct io_iocb_common {
    void *buf;
    unsigned long nbytes;
    long long offset;
    long long __pad3;
    unsigned flags;
    unsigned resfd;
};
struct iocb {
    void *data;
    unsigned key, aio_rw_flags;
    short aio_lio_opcode, aio_reqprio;
    int aio_fildes;
    union { struct io_iocb_common c; } u;
};
struct io_event {
    void *data;
    struct iocb *obj;
    unsigned long res, res2;
};

int io_setup(int maxevents, io_context_t *context);
int io_destroy(io_context_t context);
int io_submit(io_context_t context, long count, struct iocb *list[]);
int io_cancel(io_context_t context, struct iocb *request, struct io_event *event);
int io_getevents(io_context_t context, long least, long most, struct io_event *events, struct timespec *timeout);
void io_prep_preadv(struct iocb *request, int fd, const struct iovec *iov, int count, long long offset);
void io_prep_pwritev(struct iocb *request, int fd, const struct iovec *iov, int count, long long offset);
void io_prep_fdsync(struct iocb *request, int fd);
void io_set_eventfd(struct iocb *request, int fd);
#endif
