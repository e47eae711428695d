/* Hypercalls that a guest kernel makes all the time, and its writes to page tables, by functions that need no more of the guest than their arguments
   (`oxen_quick_*` in upcall.rs). Where one says that it has not done the call, the slow path finds the registers as that function left
   them in the frame: the guest's, or the arguments of the part that is not done.

   As in fast.s, nothing but the upcall's flag is looked at on the way back: these functions give no work to their own CPU. */

/* Places in the table, a power of two: the number is masked as well as compared, so that no processor speculates beyond. */
.set QUICK_CALLS, 32

.pushsection .rodata, "a", @progbits
.balign 8
/* The function for each number; 0 where there is none. */
.Lquick_calls:
    .org .Lquick_calls + 8 * {MMU_UPDATE}
    .quad {quick_mmu_update}
    .org .Lquick_calls + 8 * {STACK_SWITCH}
    .quad {quick_stack_switch}
    .org .Lquick_calls + 8 * {FPU_TASKSWITCH}
    .quad {quick_fpu_taskswitch}
    .org .Lquick_calls + 8 * {UPDATE_VA_MAPPING}
    .quad {quick_update_va_mapping}
    .org .Lquick_calls + 8 * {XEN_VERSION}
    .quad {quick_xen_version}
    .org .Lquick_calls + 8 * {SET_SEGMENT_BASE}
    .quad {quick_set_segment_base}
    .org .Lquick_calls + 8 * {MMUEXT_OP}
    .quad {quick_mmuext_op}
    .org .Lquick_calls + 8 * QUICK_CALLS
.popsection

.macro restore_arguments
    mov rdi, [rsp + F_RDI]
    mov rsi, [rsp + F_RSI]
    mov rdx, [rsp + F_RDX]
    mov r10, [rsp + F_R10]
    mov r8, [rsp + F_R8]
    mov r9, [rsp + F_R9]
    mov r11, [rsp + F_R11]
    mov rcx, [rsp + F_RCX]
.endm

.balign 64
/* syscall in kernel mode. Functions keep rbx, rbp and r12 to r15. The way back is by sysret: a return address in the upper half is canonical, since the
   processor itself has put it there, and without TF and RF the flags are no matter. */
.Lkernel_syscall:
    cmp rax, {HYPERCALL_IRET}
    je .Lfast_iret
    cmp rax, QUICK_CALLS
    jae .Lslow_syscall
    test r11d, {TF_RF}
    jnz .Lslow_syscall
    test rcx, rcx
    jns .Lslow_syscall
    mov [rsp + F_R11], r11
    mov [rsp + F_RCX], rcx
    mov ecx, eax
    and ecx, QUICK_CALLS - 1
    lea r11, [rip + .Lquick_calls]
    mov r11, [r11 + rcx * 8]
    test r11, r11
    jz .Lquick_none
    mov [rsp + F_RAX], rax
    mov [rsp + F_RDI], rdi
    mov [rsp + F_RSI], rsi
    mov [rsp + F_RDX], rdx
    mov [rsp + F_R10], r10
    mov [rsp + F_R8], r8
    mov [rsp + F_R9], r9
    mov rcx, r10
    lea r8, [rsp + F_R15]
    call r11
    cmp rax, {QUICK_NOT_DONE}
    je .Lquick_not_done
    mov rcx, [rsp + F_END + {TO_UPCALL_MASK}]
    cmp byte ptr [rcx - 1], 0
    jne .Lquick_pending
.Lquick_back:
    restore_arguments
    mov rsp, [rsp + F_RSP]
    sysretq

/* An upcall is pending: delivered where it is not masked. */
.Lquick_pending:
    cmp byte ptr [rcx], 0
    jne .Lquick_back
    restore_arguments
    mov dword ptr [rsp + F_VECTOR], {VECTOR_DONE}
    jmp .Lslow_with_vector

.Lquick_not_done:
    mov rax, [rsp + F_RAX]
    restore_arguments
    jmp .Lslow_syscall

.Lquick_none:
    mov rcx, [rsp + F_RCX]
    mov r11, [rsp + F_R11]
    jmp .Lslow_syscall

.balign 64
/* A page fault in kernel mode. A write to a page that is there may be one to a page table. */
.Lkernel_page_fault:
    mov dword ptr [rsp + F_VECTOR], 14
    cld
    clear_ac
    save_registers
    mov eax, [rsp + F_ERROR]
    cmp eax, {WRITE_TO_PRESENT}
    jne .Lfrom_guest
    lea rdi, [rsp + F_R15]
    call {quick_write_fault}
    test al, al
    jz .Lfrom_guest
    mov rcx, [rsp + F_END + {TO_UPCALL_MASK}]
    cmp byte ptr [rcx - 1], 0
    je .Lby_iret
    cmp byte ptr [rcx], 0
    jne .Lby_iret
    mov dword ptr [rsp + F_VECTOR], {VECTOR_DONE}
    jmp .Lfrom_guest
