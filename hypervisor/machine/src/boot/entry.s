# First instructions. GRUB enters in 32-bit protected mode without paging, on BIOS and on UEFI machines alike (Multiboot2
# specification 2.0, section "I386 machine state"): eax = magic, ebx = physical address of the boot information.
# The image may have been moved anywhere below 4 GiB, 2 MiB aligned; everything in this section is addressed relative to its start,
# which is the start of the image. AT&T syntax.

.section .boot, "awx", @progbits
.balign 8
boot_base:

multiboot2_header:
    .long 0xe85250d6                                    # magic
    .long 0                                             # architecture: 32-bit protected mode of i386
    .long multiboot2_header_end - multiboot2_header
    .long -(0xe85250d6 + (multiboot2_header_end - multiboot2_header))
    # Information request, optional: command line, loader name, modules, memory map, framebuffer, ELF sections, EFI 64 system table,
    # ACPI old and new RSDP, EFI memory map.
1:  .short 1, 1
    .long 2f - 1b
    .long 1, 2, 3, 6, 8, 9, 12, 14, 15, 17
2:  .balign 8
    # Framebuffer, optional, no preference. Without this tag a UEFI machine would have no screen.
1:  .short 5, 1
    .long 2f - 1b
    .long 0, 0, 0
2:  .balign 8
    # Modules on page boundaries.
1:  .short 6, 0
    .long 2f - 1b
2:  .balign 8
    # Relocatable: from 2 MiB to 4 GiB, on 2 MiB, as low as possible.
1:  .short 10, 0
    .long 2f - 1b
    .long 0x200000, 0xffffffff, 0x200000, 1
2:  .balign 8
    .short 0, 0
    .long 8
multiboot2_header_end:

.code32
.globl oxen_start
.type oxen_start, @function
oxen_start:
    cli
    cld
    cmpl $0x36d76289, %eax
    jne not_multiboot2

    # The second word of the boot information is reserved: one stack slot, enough to learn our own address.
    leal 8(%ebx), %esp
    call 1f
1:  popl %ebp
    subl $(1b - boot_base), %ebp
    leal (boot_stack32_end - boot_base)(%ebp), %esp
    movl %ebx, %esi

    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb no_long_mode
    movl $0x80000001, %eax
    cpuid
    btl $29, %edx
    jnc no_long_mode

    # The first 4 GiB, at 0 and in the direct map, in 2 MiB pages.
    leal (boot_l2_low - boot_base)(%ebp), %edi
    movl $0x83, %eax
    xorl %ecx, %ecx
1:  movl %eax, (%edi,%ecx,8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $2048, %ecx
    jne 1b
    leal 3(%edi), %eax
    leal (boot_l3_low - boot_base)(%ebp), %edi
    movl %eax, (%edi)
    addl $0x1000, %eax
    movl %eax, 8(%edi)
    addl $0x1000, %eax
    movl %eax, 16(%edi)
    addl $0x1000, %eax
    movl %eax, 24(%edi)
    leal 3(%edi), %eax
    leal (boot_l4 - boot_base)(%ebp), %edi
    movl %eax, (%edi)
    movl %eax, (8*262)(%edi)

    # The image at its linked address: 32 MiB from where it was loaded.
    leal (boot_l2_image - boot_base)(%ebp), %edi
    leal 0x83(%ebp), %eax
    xorl %ecx, %ecx
1:  movl %eax, (%edi,%ecx,8)
    addl $0x200000, %eax
    incl %ecx
    cmpl $16, %ecx
    jne 1b
    leal 3(%edi), %eax
    leal (boot_l3_image - boot_base)(%ebp), %edi
    movl %eax, (8*321)(%edi)
    leal 3(%edi), %eax
    leal (boot_l4 - boot_base)(%ebp), %edi
    movl %eax, (8*261)(%edi)

    # PAE; long mode; paging with write protection. The processor's own order (Intel SDM vol. 3, "Initializing IA-32e Mode").
    movl $0x20, %eax
    movl %eax, %cr4
    movl %edi, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl $0x80010033, %eax
    movl %eax, %cr0

    leal (boot_gdt - boot_base)(%ebp), %eax
    movl %eax, (boot_gdt_pointer + 2 - boot_base)(%ebp)
    lgdt (boot_gdt_pointer - boot_base)(%ebp)
    leal (boot_64 - boot_base)(%ebp), %eax
    pushl $8
    pushl %eax
    lretl

# Without multiboot2 the registers say nothing; the traditional boot sector's stack is as good a place as any.
not_multiboot2:
    movl $0x7c00, %esp
    call 1f
1:  popl %ebp
    subl $(1b - boot_base), %ebp
    leal (text_not_multiboot2 - boot_base)(%ebp), %esi
    jmp early_stop
no_long_mode:
    leal (text_no_long_mode - boot_base)(%ebp), %esi

# Prints the text at esi on the VGA text screen and on the first serial port, then stops.
early_stop:
    movl $0xb8000, %edi
    movw $0x3fb, %dx            # 115200 baud, 8n1
    movb $0x80, %al
    outb %al, %dx
    movw $0x3f8, %dx
    movb $1, %al
    outb %al, %dx
    incw %dx
    xorb %al, %al
    outb %al, %dx
    movw $0x3fb, %dx
    movb $3, %al
    outb %al, %dx
1:  lodsb
    testb %al, %al
    jz 3f
    movb %al, %bl
    cmpb $0x20, %al             # line ends are for the serial port only
    jb 4f
    movb $0x0f, %ah
    stosw
4:
    movl $0x10000, %ecx         # bounded: there may be no serial port
    movw $0x3fd, %dx
2:  inb %dx, %al
    testb $0x20, %al
    loopz 2b
    movw $0x3f8, %dx
    movb %bl, %al
    outb %al, %dx
    jmp 1b
3:  hlt
    jmp 3b

text_not_multiboot2:
    .asciz "(OXEN) Not started by a Multiboot2 loader: use GRUB's multiboot2 command.\r\n"
text_no_long_mode:
    .asciz "(OXEN) This processor has no 64-bit mode.\r\n"

.code64
boot_64:
    xorl %eax, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %fs
    movl %eax, %gs
    movl %eax, %ss
    movabsq $boot_high, %rax
    jmpq *%rax
boot_high:
    leaq boot_gdt(%rip), %rax
    movq %rax, boot_gdt_pointer+2(%rip)
    lgdt boot_gdt_pointer(%rip)
    movabsq $boot_stack_end, %rsp
    movl %esi, %edi             # physical address of the boot information
    movl %ebp, %esi             # physical address of the image
    xorl %ebp, %ebp
    call {rust_entry}
    ud2

.balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 64-bit code
boot_gdt_pointer:
    .short 15
    .quad 0

.balign 16
boot_stack32:
    .skip 64
boot_stack32_end:

.balign 4096
.globl boot_l4
boot_l4:        .skip 4096
.globl boot_l3_low
boot_l3_low:    .skip 4096
.globl boot_l2_low
boot_l2_low:    .skip 4 * 4096
boot_l3_image:  .skip 4096
boot_l2_image:  .skip 4096

.text
