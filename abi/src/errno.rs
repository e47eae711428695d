//! Error numbers (`errno.h`). They are Xen's own and equal Linux's on x86.

use core::fmt;

macro_rules! errors {
    (
        public { $( $name:ident = $value:literal, $c_name:literal, $text:literal; )* }
        internal { $( $internal_name:ident = $internal_value:literal, $internal_text:literal; )* }
    ) => {
        /// An error number of the hypercall interface.
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Errno {
            $(
                #[doc = concat!("`", $c_name, "`: ", $text, ".")]
                $name = $value,
            )*
            $(
                #[doc = concat!($internal_text, ". Never returned to a guest.")]
                $internal_name = $internal_value,
            )*
        }

        impl Errno {
            /// The error with number `raw` (positive).
            pub const fn from_raw(raw: i64) -> Option<Self> {
                match raw {
                    $( $value => Some(Self::$name), )*
                    $( $internal_value => Some(Self::$internal_name), )*
                    _ => None,
                }
            }

            /// The symbolic name, such as `EINVAL`.
            pub const fn name(self) -> &'static str {
                match self {
                    $( Self::$name => stringify!($name), )*
                    $( Self::$internal_name => stringify!($internal_name), )*
                }
            }

            /// What the number means, in a few words.
            pub const fn text(self) -> &'static str {
                match self {
                    $( Self::$name => $text, )*
                    $( Self::$internal_name => $internal_text, )*
                }
            }
        }

        pub(crate) const CONSTS: &[crate::tables::Constant] = &[
            $( crate::tables::Constant { c_name: $c_name, value: $value }, )*
        ];
    };
}

errors! {
    public {
        EPERM = 1, "XEN_EPERM", "operation not permitted";
        ENOENT = 2, "XEN_ENOENT", "no such thing";
        ESRCH = 3, "XEN_ESRCH", "no such domain";
        EIO = 5, "XEN_EIO", "I/O error";
        ENXIO = 6, "XEN_ENXIO", "no such device or address";
        E2BIG = 7, "XEN_E2BIG", "too many entries";
        ENOEXEC = 8, "XEN_ENOEXEC", "not executable";
        EBADF = 9, "XEN_EBADF", "bad handle";
        ECHILD = 10, "XEN_ECHILD", "no child";
        EAGAIN = 11, "XEN_EAGAIN", "try again";
        ENOMEM = 12, "XEN_ENOMEM", "out of memory";
        EACCES = 13, "XEN_EACCES", "access or interface version refused";
        EFAULT = 14, "XEN_EFAULT", "bad address";
        EBUSY = 16, "XEN_EBUSY", "busy";
        EEXIST = 17, "XEN_EEXIST", "exists already";
        EXDEV = 18, "XEN_EXDEV", "crosses a boundary";
        ENODEV = 19, "XEN_ENODEV", "no such device";
        ENOTDIR = 20, "XEN_ENOTDIR", "not a directory";
        EISDIR = 21, "XEN_EISDIR", "is a directory";
        EINVAL = 22, "XEN_EINVAL", "invalid argument";
        ENFILE = 23, "XEN_ENFILE", "table full";
        EMFILE = 24, "XEN_EMFILE", "too many open";
        ENOSPC = 28, "XEN_ENOSPC", "no space left";
        EROFS = 30, "XEN_EROFS", "read-only";
        EMLINK = 31, "XEN_EMLINK", "too many links";
        EDOM = 33, "XEN_EDOM", "argument out of domain";
        ERANGE = 34, "XEN_ERANGE", "out of range";
        EDEADLK = 35, "XEN_EDEADLK", "would deadlock";
        ENAMETOOLONG = 36, "XEN_ENAMETOOLONG", "name too long";
        ENOLCK = 37, "XEN_ENOLCK", "no locks available";
        ENOSYS = 38, "XEN_ENOSYS", "not implemented";
        ENOTEMPTY = 39, "XEN_ENOTEMPTY", "not empty";
        ENODATA = 61, "XEN_ENODATA", "no data";
        ETIME = 62, "XEN_ETIME", "time has passed";
        EBADMSG = 74, "XEN_EBADMSG", "bad message";
        EOVERFLOW = 75, "XEN_EOVERFLOW", "value too large";
        EILSEQ = 84, "XEN_EILSEQ", "illegal byte sequence";
        ENOTSOCK = 88, "XEN_ENOTSOCK", "not a socket";
        EMSGSIZE = 90, "XEN_EMSGSIZE", "message too long";
        EOPNOTSUPP = 95, "XEN_EOPNOTSUPP", "not supported";
        EADDRINUSE = 98, "XEN_EADDRINUSE", "address in use";
        EADDRNOTAVAIL = 99, "XEN_EADDRNOTAVAIL", "address not available";
        ENOBUFS = 105, "XEN_ENOBUFS", "buffer too small";
        EISCONN = 106, "XEN_EISCONN", "connected already";
        ENOTCONN = 107, "XEN_ENOTCONN", "not connected";
        ETIMEDOUT = 110, "XEN_ETIMEDOUT", "timed out";
        ECONNREFUSED = 111, "XEN_ECONNREFUSED", "refused";
    }
    internal {
        EINTR = 4, "interrupted";
        ERESTART = 85, "to be restarted";
    }
}

impl Errno {
    /// The positive number.
    pub const fn raw(self) -> u16 {
        self as u16
    }

    /// The value that the failed hypercall returns in `rax`: the number negated.
    pub const fn to_ret(self) -> i64 {
        -(self as i64)
    }

    /// The error that a hypercall's return value `ret` stands for; `None` when it is no known error (a result of zero or more,
    /// too).
    pub const fn from_ret(ret: i64) -> Option<Self> {
        match ret.checked_neg() {
            Some(raw) => Self::from_raw(raw),
            None => None,
        }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.text())
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    #[test]
    fn return_values_are_negated_numbers() {
        assert_eq!(Errno::ENOSYS.to_ret(), -38);
        assert_eq!(Errno::from_ret(-38), Some(Errno::ENOSYS));
        assert_eq!(Errno::from_ret(38), None);
        assert_eq!(Errno::from_ret(0), None);
        assert_eq!(Errno::from_ret(i64::MIN), None);
    }

    #[test]
    fn display_names_the_error() {
        assert_eq!(format!("{}", Errno::EINVAL), "EINVAL (invalid argument)");
    }
}
