/* What QEMU uses of zlib, for machines that lack it: names and types, so that its calls can be read. */
#ifndef STUDYKVM_ZLIB_H
#define STUDYKVM_ZLIB_H

typedef unsigned char Byte, Bytef;
typedef unsigned int uInt;
typedef unsigned long uLong, uLongf;
typedef void *voidpf;
typedef struct z_stream_s {
    const Bytef *next_in;
    uInt avail_in;
    uLong total_in;
    Bytef *next_out;
    uInt avail_out;
    uLong total_out;
    const char *msg;
    void *state;
    voidpf (*zalloc)(voidpf, uInt, uInt);
    void (*zfree)(voidpf, voidpf);
    voidpf opaque;
    int data_type;
    uLong adler, reserved;
} z_stream, *z_streamp;

enum { Z_NO_FLUSH, Z_PARTIAL_FLUSH, Z_SYNC_FLUSH, Z_FULL_FLUSH, Z_FINISH, Z_BLOCK };
enum { Z_BUF_ERROR = -5, Z_MEM_ERROR, Z_DATA_ERROR, Z_STREAM_ERROR, Z_ERRNO, Z_OK, Z_STREAM_END, Z_NEED_DICT };
enum { Z_DEFAULT_COMPRESSION = -1, Z_NO_COMPRESSION, Z_BEST_SPEED, Z_BEST_COMPRESSION = 9 };
enum { Z_DEFAULT_STRATEGY = 0, Z_DEFLATED = 8, MAX_WBITS = 15, MAX_MEM_LEVEL = 9 };
#define Z_NULL 0

int deflateInit(z_streamp stream, int level);
int deflateInit2(z_streamp stream, int level, int method, int bits, int memory, int strategy);
int deflateParams(z_streamp stream, int level, int strategy);
int deflate(z_streamp stream, int flush);
int deflateEnd(z_streamp stream);
int deflateReset(z_streamp stream);
uLong deflateBound(z_streamp stream, uLong length);
int inflateInit(z_streamp stream);
int inflateInit2(z_streamp stream, int bits);
int inflate(z_streamp stream, int flush);
int inflateReset(z_streamp stream);
int inflateEnd(z_streamp stream);
int compress2(Bytef *to, uLongf *size, const Bytef *from, uLong length, int level);
uLong compressBound(uLong length);
int uncompress(Bytef *to, uLongf *size, const Bytef *from, uLong length);
uLong crc32(uLong crc, const Bytef *data, uInt length);
uLong adler32(uLong adler, const Bytef *data, uInt length);
#endif
