/* dlopen as we export it: changes at most the file name, then jumps to libc's.
 *
 * libc's dlopen looks at its return address to tell who calls (RUNPATH, $ORIGIN, namespace), so it
 * must see the program's and not ours: a tail jump, with the program's stack as it was.
 * allot_route_dlopen (dlopen.cc) returns the file name in %rax and where to jump in %rdx. */
    .text
    .hidden allot_route_dlopen
    .globl dlopen
    .type dlopen, @function
    .p2align 4
dlopen:
    .cfi_startproc
    endbr64
    pushq %rsi
    .cfi_adjust_cfa_offset 8
    call allot_route_dlopen
    popq %rsi
    .cfi_adjust_cfa_offset -8
    movq %rax, %rdi
    jmp *%rdx
    .cfi_endproc
    .size dlopen, . - dlopen
    .section .note.GNU-stack,"",@progbits
