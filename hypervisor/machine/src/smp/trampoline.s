# The first instructions of every processor but the boot CPU. Copied to a page below 1 MiB, where the processor begins in real mode with
# cs = page >> 4 and ip = 0. The boot CPU fills in the words at the end of the copy.

.section .rodata.trampoline, "a"
.balign 16
.globl oxen_trampoline, oxen_trampoline_end
.code16
oxen_trampoline:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    lgdtl (trampoline_gdt_pointer - oxen_trampoline)
    movl (trampoline_cr4 - oxen_trampoline), %eax
    movl %eax, %cr4
    movl (trampoline_cr3 - oxen_trampoline), %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    movl (trampoline_efer - oxen_trampoline), %eax
    xorl %edx, %edx
    wrmsr
    # Protection and paging at once: real mode to 64-bit mode in one step.
    movl (trampoline_cr0 - oxen_trampoline), %eax
    movl %eax, %cr0
    ljmpl *(trampoline_far - oxen_trampoline)

.code64
trampoline_64:
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl %eax, %fs
    movl %eax, %gs
    movq trampoline_stack(%rip), %rsp
    movl trampoline_cpu(%rip), %edi
    movq trampoline_entry(%rip), %rax
    xorl %ebp, %ebp
    pushq $0
    jmpq *%rax

.balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
trampoline_gdt_pointer:
    .word 15
    .long trampoline_gdt - oxen_trampoline
    .word 0
trampoline_far:
    .long trampoline_64 - oxen_trampoline
    .word 8
    .word 0
# The order and sizes from here to the end are those of `Parameters` in mod.rs.
.balign 8
trampoline_parameters:
trampoline_stack:
    .quad 0
trampoline_entry:
    .quad 0
trampoline_cr3:
    .long 0
trampoline_cr4:
    .long 0
trampoline_cr0:
    .long 0
trampoline_efer:
    .long 0
trampoline_cpu:
    .long 0
    .long 0
oxen_trampoline_end:

.globl oxen_trampoline_gdt_pointer, oxen_trampoline_far, oxen_trampoline_parameters
.set oxen_trampoline_gdt_pointer, trampoline_gdt_pointer
.set oxen_trampoline_far, trampoline_far
.set oxen_trampoline_parameters, trampoline_parameters
.text
