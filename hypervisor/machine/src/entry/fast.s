
/* The most frequent entries of PV guests, served here without calling logic where `Fast` in percpu.rs says so. Each path checks everything before it changes
   anything, or undoes what it has changed, and leaves every unusual case to the slow path, which finds the registers as the guest had them.

   Events cannot get lost between a check of the pending flag and the return: whoever sets the flag interrupts the CPU that runs the vCPU. So does
   whoever gives this CPU other work.

   rsp is 8 below the GuestFrame throughout, so that a trap of the hypervisor itself (the guest's stack cannot be reached) leaves the frame alone. */

.set FAST_USER, 1
/* The frame of the hypercall `iret` (public header arch-x86/xen-x86_64.h). */
.set IRET_RAX, 0
.set IRET_R11, 8
.set IRET_RCX, 16
.set IRET_FLAGS, 24
.set IRET_RIP, 32
.set IRET_CS, 40
.set IRET_RFLAGS, 48
.set IRET_RSP, 56
.set IRET_SS, 64

.macro set_ac
771:
    nop dword ptr [rax]
    .pushsection .smap_sites, "a", @progbits
    .balign 8
    .quad 771b, 0xcb
    .popsection
.endm

/* A fault at the instructions from `start` up to `end` goes on at `fixup`. */
.macro may_fault start, end, fixup
    .pushsection .ex_table, "a", @progbits
    .balign 8
    .quad \start, \end, \fixup
    .popsection
.endm

.section .text.entry, "ax", @progbits
.balign 64
/* syscall in user mode: to the guest kernel's callback, by sysret. */
.Lfast_syscall:
    mov [rsp + F_RAX], rax
    mov rax, [rsp + F_END + {TO_UPCALL_MASK}]
    cmp byte ptr [rax], 0
    jne .Lfast_syscall_masked
    mov byte ptr [rax], 1
    mov [rsp + F_RCX], rcx
    mov rax, [rsp + F_END + {TO_KERNEL_CR3}]
    mov cr3, rax
    swapgs
    mov rax, [rsp + F_END + {TO_SYSCALL_FRAME}]
    set_ac
.Lfast_syscall_push:
    mov [rax], rcx
    mov [rax + 8], r11
    mov [rax + 16], rcx
    mov qword ptr [rax + 24], {USER_CS64}
    mov [rax + 32], r11
    mov rcx, [rsp + F_RSP]
    mov [rax + 40], rcx
    mov qword ptr [rax + 48], {USER_DS}
.Lfast_syscall_pushed:
    clear_ac
    mov byte ptr [rsp + F_END + {TO_MODE}], 0
    and r11d, {SYSCALL_KEEPS}
    mov rcx, [rsp + F_END + {TO_SYSCALL}]
    xchg rax, rsp
    mov rax, [rax + F_RAX]
    sysretq
    may_fault .Lfast_syscall_push, .Lfast_syscall_pushed, .Lfast_syscall_fault

/* The guest's stack cannot be written: undone, so that the slow path finds the same and reports it. */
.Lfast_syscall_fault:
    clear_ac
    mov rax, [rsp + F_END + {TO_UPCALL_MASK}]
    mov byte ptr [rax], 0
    mov rax, [rsp + F_END + {TO_USER_CR3}]
    mov cr3, rax
    swapgs
    mov rcx, [rsp + F_RCX]
.Lfast_syscall_masked:
    mov rax, [rsp + F_RAX]
    jmp .Lslow_syscall

.balign 64
/* The hypercall `iret`: its frame is at the guest's rsp and gives all registers that are changed here. */
.Lfast_iret:
    mov [rsp + F_RCX], rcx
    mov [rsp + F_R11], r11
    mov rcx, [rsp + F_RSP]
    movabs rax, {MINUS_HYPERVISOR_END}
    add rax, rcx
    shr rax, {GUEST_SPAN_SHIFT}
    cmp eax, {GUEST_SPAN}
    jae .Lfast_iret_slow
    set_ac
.Lfast_iret_read:
    test byte ptr [rcx + IRET_FLAGS + 1], {IN_SYSCALL_BYTE_1}
    jnz .Lfast_iret_fault
    mov r11, [rcx + IRET_RFLAGS]
    test r11d, {IRET_REFUSES}
    jnz .Lfast_iret_fault
    movzx eax, word ptr [rcx + IRET_CS]
    mov [rsp + F_CS], rax
    and eax, 3
    cmp eax, 3
    jne .Lfast_iret_kernel
    /* To user mode, with upcalls unmasked and none pending. */
    mov rax, [rsp + F_END + {TO_UPCALL_MASK}]
    cmp byte ptr [rax - 1], 0
    jne .Lfast_iret_fault
    test r11d, {FLAG_IF}
    jz .Lfast_iret_fault
    mov [rsp + F_RFLAGS], r11
    mov rax, [rcx + IRET_RIP]
    mov [rsp + F_RIP], rax
    mov rax, [rcx + IRET_RSP]
    mov [rsp + F_RSP], rax
    movzx eax, word ptr [rcx + IRET_SS]
    or eax, 3
    mov [rsp + F_SS], rax
    mov rax, [rcx + IRET_RAX]
    mov [rsp + F_RAX], rax
    mov r11, [rcx + IRET_R11]
    mov rcx, [rcx + IRET_RCX]
    clear_ac
    mov rax, [rsp + F_END + {TO_UPCALL_MASK}]
    mov byte ptr [rax], 0
    mov rax, [rsp + F_END + {TO_USER_CR3}]
    mov cr3, rax
    swapgs
    mov byte ptr [rsp + F_END + {TO_MODE}], FAST_USER
    mov rax, [rsp + F_RAX]
    add rsp, F_RIP
.globl oxen_guest_iret_user
oxen_guest_iret_user:
    iretq
.Lfast_iret_kernel:
    mov rax, [rsp + F_END + {TO_UPCALL_MASK}]
    bt r11d, 9
    jc 1f
    mov byte ptr [rax], 1
    or r11d, {FLAG_IF}
    jmp 2f
1:  cmp byte ptr [rax - 1], 0
    jne .Lfast_iret_fault
    mov byte ptr [rax], 0
2:  or qword ptr [rsp + F_CS], 3
    mov [rsp + F_RFLAGS], r11
    mov rax, [rcx + IRET_RIP]
    mov [rsp + F_RIP], rax
    mov rax, [rcx + IRET_RSP]
    mov [rsp + F_RSP], rax
    movzx eax, word ptr [rcx + IRET_SS]
    or eax, 3
    mov [rsp + F_SS], rax
    mov rax, [rcx + IRET_RAX]
    mov [rsp + F_RAX], rax
    mov r11, [rcx + IRET_R11]
    mov rcx, [rcx + IRET_RCX]
.Lfast_iret_end:
    clear_ac
    mov rax, [rsp + F_RAX]
    add rsp, F_RIP
.globl oxen_guest_iret_kernel
oxen_guest_iret_kernel:
    iretq
    may_fault .Lfast_iret_read, .Lfast_iret_end, .Lfast_iret_fault

/* rcx is still the guest's rsp. */
.Lfast_iret_fault:
    clear_ac
.Lfast_iret_slow:
    mov [rsp + F_RSP], rcx
    mov rcx, [rsp + F_RCX]
    mov r11, [rsp + F_R11]
    mov eax, {HYPERCALL_IRET}
    jmp .Lslow_syscall

.balign 64
/* A page fault; in user mode, by the guest's own tables, it goes to the guest kernel's handler, by sysret. */
.Lpage_fault:
    sub rsp, F_ERROR
    test byte ptr [rsp + F_CS], 3
    jz .Lslow_page_fault
    cmp byte ptr [rsp + F_END + {TO_MODE}], FAST_USER
    jb .Lkernel_page_fault
    ja .Lslow_page_fault
    test byte ptr [rsp + F_ERROR], {PAGE_FAULT_USER}
    jz .Lslow_page_fault
    mov [rsp + F_RAX], rax
    mov rax, [rsp + F_END + {TO_UPCALL_MASK}]
    cmp byte ptr [rax], 0
    jne .Lfast_page_fault_masked
    mov byte ptr [rax], 1
    mov [rsp + F_RCX], rcx
    mov rcx, cr2
    mov [rax + {CR2_FROM_MASK}], rcx
    mov rcx, [rsp + F_END + {TO_KERNEL_CR3}]
    mov cr3, rcx
    swapgs
    mov rax, [rsp + F_END + {TO_FAULT_FRAME}]
    mov rcx, [rsp + F_RCX]
    set_ac
.Lfast_page_fault_push:
    mov [rax], rcx
    mov [rax + 8], r11
    mov ecx, [rsp + F_ERROR]
    mov [rax + 16], rcx
    mov rcx, [rsp + F_RIP]
    mov [rax + 24], rcx
    movzx ecx, word ptr [rsp + F_CS]
    mov [rax + 32], rcx
    mov rcx, [rsp + F_RFLAGS]
    mov [rax + 40], rcx
    mov rcx, [rsp + F_RSP]
    mov [rax + 48], rcx
    movzx ecx, word ptr [rsp + F_SS]
    mov [rax + 56], rcx
.Lfast_page_fault_pushed:
    clear_ac
    mov byte ptr [rsp + F_END + {TO_MODE}], 0
    mov r11, [rsp + F_RFLAGS]
    and r11d, {KERNEL_KEEPS}
    mov rcx, [rsp + F_END + {TO_PAGE_FAULT}]
    xchg rax, rsp
    mov rax, [rax + F_RAX]
    sysretq
    may_fault .Lfast_page_fault_push, .Lfast_page_fault_pushed, .Lfast_page_fault_fault

/* As above; the fault on the stack has changed CR2. */
.Lfast_page_fault_fault:
    clear_ac
    mov rax, [rsp + F_END + {TO_UPCALL_MASK}]
    mov byte ptr [rax], 0
    mov rcx, [rax + {CR2_FROM_MASK}]
    mov cr2, rcx
    mov rcx, [rsp + F_END + {TO_USER_CR3}]
    mov cr3, rcx
    swapgs
    mov rcx, [rsp + F_RCX]
.Lfast_page_fault_masked:
    mov rax, [rsp + F_RAX]
.Lslow_page_fault:
    mov dword ptr [rsp + F_VECTOR], 14
    cld
    clear_ac
    jmp .Ltrap_saves
