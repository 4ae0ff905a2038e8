// Holds guest code down to glibc 2.17 by naming old versions of symbols that moved since.
//
// glibc 2.34 moved libdl, libpthread and librt into libc and gave their symbols a new default
// version, so that a library built there will not load on an older system. Old versions are still
// exported everywhere; this header asks for them by `.symver`. Include it in each guest source file
// that calls one of these functions (a line for a function that the file does not call does
// nothing).
//
// It has no cure for stat, fstat, lstat, fstatat (2.33: use sys/file.h), gettid and getdents64
// (2.30: use sys/process.h, sys/file.h), or pthread_atfork (static, fine). On systems before 2.34
// the symbols live in libdl.so.2 and libpthread.so.0: a library that uses them must name those as
// needed (the link line `-Wl,--no-as-needed -l:libdl.so.2 -l:libpthread.so.0`; newer systems keep
// both as stubs).
//
// Source: `objdump -T libc.so.6` of glibc 2.36, and the version lists of the GNU C library manual.
// Checked by the test `guest_glibc_floor`.
#pragma once

#include <features.h>

#if defined(__x86_64__) && defined(__GLIBC__)
__asm__(".symver dlopen, dlopen@GLIBC_2.2.5");
__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");
__asm__(".symver dlvsym, dlvsym@GLIBC_2.2.5");
__asm__(".symver dlerror, dlerror@GLIBC_2.2.5");
__asm__(".symver dladdr, dladdr@GLIBC_2.2.5");
__asm__(".symver dlclose, dlclose@GLIBC_2.2.5");
__asm__(".symver pthread_create, pthread_create@GLIBC_2.2.5");
__asm__(".symver pthread_join, pthread_join@GLIBC_2.2.5");
__asm__(".symver pthread_detach, pthread_detach@GLIBC_2.2.5");
__asm__(".symver pthread_sigmask, pthread_sigmask@GLIBC_2.2.5");
__asm__(".symver pthread_kill, pthread_kill@GLIBC_2.2.5");
__asm__(".symver pthread_key_create, pthread_key_create@GLIBC_2.2.5");
__asm__(".symver pthread_key_delete, pthread_key_delete@GLIBC_2.2.5");
__asm__(".symver pthread_setspecific, pthread_setspecific@GLIBC_2.2.5");
__asm__(".symver pthread_getspecific, pthread_getspecific@GLIBC_2.2.5");
__asm__(".symver pthread_once, pthread_once@GLIBC_2.2.5");
__asm__(".symver pthread_mutex_trylock, pthread_mutex_trylock@GLIBC_2.2.5");
__asm__(".symver pthread_attr_setstacksize, pthread_attr_setstacksize@GLIBC_2.2.5");
__asm__(".symver pthread_getattr_np, pthread_getattr_np@GLIBC_2.2.5");
__asm__(".symver shm_open, shm_open@GLIBC_2.2.5");
__asm__(".symver shm_unlink, shm_unlink@GLIBC_2.2.5");
__asm__(".symver sem_open, sem_open@GLIBC_2.2.5");
__asm__(".symver sem_wait, sem_wait@GLIBC_2.2.5");
__asm__(".symver pthread_setname_np, pthread_setname_np@GLIBC_2.12");
__asm__(".symver dladdr1, dladdr1@GLIBC_2.3.3");
__asm__(".symver dlinfo, dlinfo@GLIBC_2.3.3");
#endif
