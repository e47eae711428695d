// Xen ELF notes (public header elfnote.h) that every test kernel carries.
.macro XEN_NOTE type, kind, desc:vararg
    .balign 4
    .long 4
    .long 9f - 8f
    .long \type
    .asciz "Xen"
8:  .\kind \desc
9:  .balign 4
.endm

.pushsection .note.Xen, "a", @note
XEN_NOTE 1, quad, guest_entry                   // ENTRY
XEN_NOTE 3, quad, 0xffffffff80000000            // VIRT_BASE
XEN_NOTE 4, quad, 0                             // PADDR_OFFSET
XEN_NOTE 5, asciz, "xen-3.0"                    // XEN_VERSION
XEN_NOTE 6, asciz, "oxen-guest"                 // GUEST_OS
XEN_NOTE 8, asciz, "generic"                    // LOADER
XEN_NOTE 9, asciz, "yes"                        // PAE_MODE
XEN_NOTE 10, asciz, "!writable_page_tables|pae_pgdir_above_4gb" // FEATURES
XEN_NOTE 12, quad, 0xffff800000000000           // HV_START_LOW
XEN_NOTE 13, quad, 1, 1                         // L1_MFN_VALID: mask, value
XEN_NOTE 17, long, 0x00000801                   // SUPPORTED_FEATURES: dom0, writable_page_tables
