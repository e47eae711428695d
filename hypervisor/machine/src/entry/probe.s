/* One trip to ring 3 and back, for cpu/smap_probe.rs: rdi is the address to go to, rsi the stack pointer there. Returns the error code of the page fault
   that came back, or -1 for the breakpoint. */
.section .text.probe, "ax", @progbits
.globl oxen_probe_ring_3, oxen_probe_page_fault, oxen_probe_breakpoint
oxen_probe_ring_3:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [rip + probe_stack], rsp
    push {USER_DS}
    push rsi
    push 2
    push {USER_CS64}
    push rdi
    iretq
oxen_probe_page_fault:
    pop rax
    jmp 1f
oxen_probe_breakpoint:
    mov rax, -1
1:  mov rsp, [rip + probe_stack]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

/* What runs in ring 3. */
.section .rodata.probe, "a", @progbits
.globl oxen_probe_program, oxen_probe_program_end
oxen_probe_program:
    lea rax, [rip + 1f]
    push {USER_CS64}
    push rax
    retfq
1:  int3
oxen_probe_program_end:

.section .bss.probe, "aw", @nobits
.balign 8
probe_stack:
    .quad 0
