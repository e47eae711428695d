/* The program in ring 3. It is copied to GUEST_CODE; each numbered step makes the entry that the list in steps.rs expects at that place. Every
   step leaves known values in registers and checks after it that they are back. */
.section .rodata.guest, "a"
.globl guest_program, guest_program_end
.balign 16

.macro canaries
    mov rbx, 0x1111111111111111
    mov rbp, 0x2222222222222222
    mov rsi, 0x3333333333333333
    mov rdi, 0x4444444444444444
    mov r8, 0x5555555555555555
    mov r10, 0x6666666666666666
    mov r12, 0x7777777777777777
    mov r15, 0x8888888888888888
.endm

/* Falls through where the canaries are intact; otherwise an `ud2` that no step expects. */
.macro check_canaries
    mov r9, 0x1111111111111111
    cmp rbx, r9
    jne bad
    mov r9, 0x2222222222222222
    cmp rbp, r9
    jne bad
    mov r9, 0x3333333333333333
    cmp rsi, r9
    jne bad
    mov r9, 0x4444444444444444
    cmp rdi, r9
    jne bad
    mov r9, 0x5555555555555555
    cmp r8, r9
    jne bad
    mov r9, 0x6666666666666666
    cmp r10, r9
    jne bad
    mov r9, 0x7777777777777777
    cmp r12, r9
    jne bad
    mov r9, 0x8888888888888888
    cmp r15, r9
    jne bad
.endm

guest_program:
    /* 0: syscall, returned to by sysret */
    canaries
    std
    mov eax, 0
    syscall
    check_canaries
    cmp rax, 1000
    jne bad
    pushfq
    pop rax
    test eax, 0x400         /* DF is back */
    jz bad
    cld
    /* 1: syscall, returned to by iret with other rcx and r11 */
    canaries
    mov eax, 1
    syscall
    check_canaries
    cmp rcx, 77
    jne bad
    cmp r11, 88
    jne bad
    /* 2: breakpoint */
    canaries
    int3
    check_canaries
    /* 3: invalid opcode; the test skips it */
    ud2
    check_canaries
    /* 4: page fault: read of an absent page; the test skips the three bytes */
    mov rdx, 0x123456789000
    mov rax, [rdx]
    check_canaries
    /* 5: page fault: write to its own code */
    lea rdx, [rip + guest_program]
    mov [rdx], rax
    check_canaries
    /* 6: write to the machine-to-phys table, 7: read of the hypervisor's data */
    mov rdx, 0xffff800000000000
    mov [rdx], rax
    mov rdx, 0xffff82d040000000
    mov rax, [rdx]
    /* 8: int 0x80, 9: int 0x40 */
    int 0x80
    int 0x40
    /* 10: privileged instruction */
    cli
    /* 11: the return faults on an address that is not canonical; the test then goes on at rdx (12) */
    lea rdx, [rip + 1f]
    mov eax, 11
    syscall
    ud2
1:  check_canaries
    /* 13: the return faults on a bad code segment, goes on at rdx (14) */
    lea rdx, [rip + 1f]
    mov eax, 13
    syscall
    ud2
1:  check_canaries
    /* 15: single step: a debug exception after `nop`; flags with AC and DF meanwhile */
    pushfq
    or dword ptr [rsp], 0x40500
    popfq
    nop
    /* 16: syscall under TF and AC: the hypervisor must not be stepped */
    mov eax, 16
    syscall
    cld
    pushfq
    and dword ptr [rsp], ~0x40000
    popfq
    check_canaries
    /* 17: guest copies */
    mov eax, 17
    syscall
    check_canaries
    /* 18: a selector of the LDT whose page the test maps at the fault; then it works */
    mov eax, 18
    syscall
    mov ecx, 0x7
    mov ds, ecx
    mov eax, 20
    syscall
    check_canaries
    /* 21: a selector of the GDT window's first page */
    mov ecx, 0x0b
    mov es, ecx
    mov ecx, es
    cmp ecx, 0x0b
    jne bad
    /* absent descriptor: 21 is a protection fault */
    mov ecx, 0x13
    mov es, ecx
    /* 22: FPU state is switched: the test saves this context, loads another one, loads this one again */
    mov rax, 0x0123456789abcdef
    movq xmm3, rax
    fninit
    fld1
    mov eax, 22
    syscall
    movq rdx, xmm3
    mov rax, 0x0123456789abcdef
    cmp rax, rdx
    jne bad
    sub rsp, 8
    fistp qword ptr [rsp]
    pop rax
    cmp rax, 1
    jne bad
    check_canaries
    /* 23: #NM under TS */
    mov eax, 23
    syscall
    movq rdx, xmm3
    /* 25: GS bases */
    mov eax, 25
    syscall
    mov rax, gs:[0]
    cmp rax, rdx
    jne bad
    /* 26: speed */
    mov r14d, 1000
2:  mov eax, 26
    syscall
    dec r14d
    jnz 2b
    /* 27: syscall from 32-bit code; the test goes on at rdx in 64-bit code */
    canaries
    lea rdx, [rip + 3f]
    push 0xe023
    lea rax, [rip + 4f]
    push rax
    retfq
4:  mov eax, 27             /* the same bytes in 32-bit code */
    syscall
    ud2
3:  check_canaries
    /* 28: sysenter with AC, DF and NT; the test goes on at rdx with the stack that the instruction loses */
    pushfq
    or dword ptr [rsp], 0x44400
    popfq
    lea rdx, [rip + 3f]
    sysenter
    ud2
3:  check_canaries
    cld
    pushfq
    and dword ptr [rsp], ~0x44000
    popfq
    /* 29, 30: a watchpoint, and `mov ss` before a system call */
    mov eax, 29
    syscall
    mov eax, 30
    mov ss, word ptr [rdx]
    syscall
    mov eax, 31
    syscall
3:  int3
    jmp 3b
bad:
    ud2
guest_program_end:
