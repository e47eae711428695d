/* Entries from guests and traps, and the way back.

   A GuestFrame is built at the top of the CPU's main stack, with one word of padding below it: rsp is then a multiple of 16 where Rust code is
   called. GS always holds the guest's value. Offsets of a GuestFrame's fields, from rsp with the padding: */
.set F_R15, 8
.set F_R14, 16
.set F_R13, 24
.set F_R12, 32
.set F_RBP, 40
.set F_RBX, 48
.set F_R11, 56
.set F_R10, 64
.set F_R9, 72
.set F_R8, 80
.set F_RAX, 88
.set F_RCX, 96
.set F_RDX, 104
.set F_RSI, 112
.set F_RDI, 120
.set F_ERROR, 128
.set F_VECTOR, 132
.set F_RIP, 136
.set F_CS, 144
.set F_RFLAGS, 152
.set F_RSP, 160
.set F_SS, 168
.set F_END, 176

.macro save_registers
    mov [rsp + F_RDI], rdi
    mov [rsp + F_RSI], rsi
    mov [rsp + F_RDX], rdx
    mov [rsp + F_RCX], rcx
    mov [rsp + F_RAX], rax
    mov [rsp + F_R8], r8
    mov [rsp + F_R9], r9
    mov [rsp + F_R10], r10
    mov [rsp + F_R11], r11
    mov [rsp + F_RBX], rbx
    mov [rsp + F_RBP], rbp
    mov [rsp + F_R12], r12
    mov [rsp + F_R13], r13
    mov [rsp + F_R14], r14
    mov [rsp + F_R15], r15
.endm

/* All but rcx and r11. */
.macro restore_most_registers
    mov r15, [rsp + F_R15]
    mov r14, [rsp + F_R14]
    mov r13, [rsp + F_R13]
    mov r12, [rsp + F_R12]
    mov rbp, [rsp + F_RBP]
    mov rbx, [rsp + F_RBX]
    mov r10, [rsp + F_R10]
    mov r9, [rsp + F_R9]
    mov r8, [rsp + F_R8]
    mov rax, [rsp + F_RAX]
    mov rdx, [rsp + F_RDX]
    mov rsi, [rsp + F_RSI]
    mov rdi, [rsp + F_RDI]
.endm

.macro restore_registers
    mov r11, [rsp + F_R11]
    mov rcx, [rsp + F_RCX]
    restore_most_registers
.endm

/* Room for `clac`, which is put here where the CPU has SMAP. */
.macro clear_ac
771:
    nop dword ptr [rax]
    .pushsection .smap_sites, "a", @progbits
    .balign 8
    .quad 771b, 0xca
    .popsection
.endm

/* The page that each CPU's area shows beside its own data: what the `syscall` instruction reaches. The CPU is still on the guest's stack and has no
   free register, so memory is reached relative to rip. The guest's rsp goes to its place in the frame. */
.section .text.syscall_stub, "ax", @progbits
.balign 4096
.globl oxen_syscall_stub
oxen_syscall_stub:
    mov [rip + oxen_syscall_stub + {MAIN_STACK_TOP} - 16], rsp
    lea rsp, [rip + oxen_syscall_stub + {MAIN_STACK_TOP} - 16]
    jmp [rip + oxen_syscall_stub + {SYSCALL_ENTRY}]
.balign 64, 0xcc
.globl oxen_syscall32_stub
oxen_syscall32_stub:
    mov [rip + oxen_syscall_stub + {MAIN_STACK_TOP} - 16], rsp
    lea rsp, [rip + oxen_syscall_stub + {MAIN_STACK_TOP} - 16]
    jmp [rip + oxen_syscall_stub + {SYSCALL32_ENTRY}]
.balign 4096, 0xcc

.section .text.entry, "ax", @progbits

/* syscall: rcx is the return address, r11 the flags, rsp points to the frame's rsp. */
.balign 64
.globl oxen_syscall_entry
oxen_syscall_entry:
    sub rsp, F_RSP
    cmp byte ptr [rsp + F_END + {TO_MODE}], 1
    je .Lfast_syscall
    jb .Lkernel_syscall
.Lslow_syscall:
    mov dword ptr [rsp + F_VECTOR], {VECTOR_HYPERCALL}
.Lslow_with_vector:
    mov qword ptr [rsp + F_SS], {USER_DS}
    mov [rsp + F_RFLAGS], r11
    mov qword ptr [rsp + F_CS], {USER_CS64}
    mov [rsp + F_RIP], rcx
    mov dword ptr [rsp + F_ERROR], 0
    save_registers
.globl oxen_from_guest_again
oxen_from_guest_again:
.Lfrom_guest:
    lea rdi, [rsp + F_R15]
    call {guest_entry}

/* The way back to a guest: rsp is 8 below its frame. `sysret` does not restore rcx and r11, loads flat selectors, and with a non-canonical address some
   processors fault in ring 0 on the guest's stack; with TF the trap would come one instruction late, and RF is lost. */
.globl oxen_exit
oxen_exit:
    mov rcx, [rsp + F_RIP]
    cmp rcx, [rsp + F_RCX]
    jne .Lby_iret
    mov r11, [rsp + F_RFLAGS]
    cmp r11, [rsp + F_R11]
    jne .Lby_iret
    cmp dword ptr [rsp + F_CS], {USER_CS64}
    jne .Lby_iret
    cmp dword ptr [rsp + F_SS], {USER_DS}
    jne .Lby_iret
    test r11d, {TF_RF}
    jnz .Lby_iret
    movabs rax, 0x800000000000
    add rax, rcx
    shr rax, 48
    jnz .Lby_iret
    restore_most_registers
    mov rsp, [rsp + F_RSP]
    sysretq
.Lby_iret:
    /* Whatever the frame says, the guest runs in ring 3. */
    or byte ptr [rsp + F_CS], 3
    restore_registers
    add rsp, F_RIP
.globl oxen_guest_iret
oxen_guest_iret:
    iretq

/* syscall from 32-bit code. */
.balign 64
.globl oxen_syscall32_entry
oxen_syscall32_entry:
    sub rsp, F_RSP
    mov qword ptr [rsp + F_SS], {USER_DS}
    mov [rsp + F_RFLAGS], r11
    mov qword ptr [rsp + F_CS], {USER_CS32}
    mov [rsp + F_RIP], rcx
    mov dword ptr [rsp + F_VECTOR], {VECTOR_SYSCALL32}
    mov dword ptr [rsp + F_ERROR], 0
    save_registers
    jmp .Lfrom_guest

/* sysenter: the processor loaded rsp with the top of the main stack and kept nothing but the flags. NT, TF, AC and DF are cleared with the rest. */
.balign 64
.globl oxen_sysenter_entry
oxen_sysenter_entry:
    push {USER_DS}
    push 0
    pushfq
    push 2
    popfq
    or dword ptr [rsp], 0x200
    push 3
    push 0
    push 0
    mov dword ptr [rsp + 4], {VECTOR_SYSENTER}
    sub rsp, F_ERROR
    save_registers
    jmp .Lfrom_guest

/* Traps and interrupts: rsp points to the word with error code and vector. */
.balign 64
.Ltrap:
    cld
    clear_ac
    sub rsp, F_ERROR
.Ltrap_saves:
    save_registers
    test byte ptr [rsp + F_CS], 3
    jnz .Lfrom_guest
.Ltrap_in_hypervisor:
    lea rdi, [rsp + F_R15]
    call {host_trap}
    restore_registers
    add rsp, F_RIP
    iretq

/* A debug exception comes on its own stack. From a guest it is an ordinary trap, to be dealt with on the main stack. */
.Ldebug:
    test byte ptr [rsp + 16], 3
    jz .Ltrap
    push rax
    mov rax, rsp
    and rax, -{STRIDE}
    pop qword ptr [rax + {MAIN_STACK_TOP} - F_END + F_RAX]
    pop qword ptr [rax + {MAIN_STACK_TOP} - F_END + F_ERROR]
    pop qword ptr [rax + {MAIN_STACK_TOP} - F_END + F_RIP]
    pop qword ptr [rax + {MAIN_STACK_TOP} - F_END + F_CS]
    pop qword ptr [rax + {MAIN_STACK_TOP} - F_END + F_RFLAGS]
    pop qword ptr [rax + {MAIN_STACK_TOP} - F_END + F_RSP]
    pop qword ptr [rax + {MAIN_STACK_TOP} - F_END + F_SS]
    lea rsp, [rax + {MAIN_STACK_TOP} - F_END]
    mov rax, [rsp + F_RAX]
    cld
    clear_ac
    save_registers
    jmp .Lfrom_guest

/* Non-maskable interrupts, double faults and machine checks stay on their own stack, whoever was interrupted. */
.Lon_own_stack:
    cld
    clear_ac
    sub rsp, F_ERROR
    save_registers
    jmp .Ltrap_in_hypervisor

.macro entry_point vector
    .balign 16
    .if \vector == 14
    jmp .Lpage_fault
    .exitm
    .endif
    .if (\vector == 8) | ((\vector >= 10) & (\vector <= 14)) | (\vector == 17) | (\vector == 21) | (\vector == 29) | (\vector == 30)
    .else
    push 0
    .endif
    mov dword ptr [rsp + 4], \vector
    .if \vector == 1
    jmp .Ldebug
    .elseif (\vector == 2) | (\vector == 8) | (\vector == 18)
    jmp .Lon_own_stack
    .else
    jmp .Ltrap
    .endif
.endm

/* One entry for each vector, 16 bytes apart. */
.balign 16
.altmacro
.globl oxen_vectors
oxen_vectors:
.set vector, 0
.rept 256
    entry_point %vector
    .set vector, vector + 1
.endr
.globl oxen_vectors_end
oxen_vectors_end:
.noaltmacro
