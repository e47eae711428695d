//! How this crate writes down structures, open enums and constants.
//!
//! Each macro emits ordinary items plus one private table for [`crate::tables`], so a fact cannot be stated without being checked
//! against the public header too. Use each macro at most once per module.

/// `#[repr(C)]` structures: `[offset] field: type as "C name"`, the last part only where the C name differs from the Rust one.
///
/// Fields whose C names start with an underscore are padding or bit fields; they are not compared with the header.
macro_rules! abi_structs {
    ($(
        $(#[$meta:meta])*
        pub struct $name:ident = $c_name:literal [$size:literal] {
            $( $(#[$fmeta:meta])* [$offset:literal] $field:ident: $ty:ty $(as $c_field:literal)?, )*
        }
    )*) => {
        $(
            $(#[$meta])*
            #[doc = concat!("\n\nC: `", $c_name, "`, ", $size, " bytes.")]
            #[derive(
                Clone, Copy, Debug, PartialEq, Eq,
                zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
            )]
            #[repr(C)]
            pub struct $name {
                $(
                    $(#[$fmeta])*
                    #[doc = concat!("\n\nAt byte ", $offset, ".")]
                    pub $field: $ty,
                )*
            }

            impl Default for $name {
                /// All bytes zero.
                fn default() -> Self {
                    zerocopy::FromZeros::new_zeroed()
                }
            }

            const _: () = {
                assert!(size_of::<$name>() == $size, concat!("size of ", $c_name));
                $( assert!(core::mem::offset_of!($name, $field) == $offset, concat!("offset of ", $c_name, ".", stringify!($field))); )*
            };
        )*

        pub(crate) const STRUCTS: &[$crate::tables::Struct] = &[$(
            $crate::tables::Struct {
                c_name: $c_name,
                size: $size,
                fields: &[$(
                    $crate::tables::Field {
                        c_name: first_literal!($($c_field,)? stringify!($field),),
                        offset: $offset,
                        size: $crate::tables::size_of_field(|s: &$name| &s.$field),
                    },
                )*],
            },
        )*];
    };
}

/// The first of its arguments.
macro_rules! first_literal {
    ($first:expr, $($rest:expr,)*) => {
        $first
    };
}

/// Open enums: `NAME = value => "C name"`.
macro_rules! abi_enums {
    ($(
        $(#[$meta:meta])*
        pub enum $name:ident: $repr:ident {
            $( $(#[$vmeta:meta])* $variant:ident = $value:expr => $c_name:literal, )*
        }
    )*) => {
        $(
            $(#[$meta])*
            #[derive(
                Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
                zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
            )]
            #[repr(transparent)]
            pub struct $name(pub $repr);

            impl $name {
                $(
                    $(#[$vmeta])*
                    #[doc = concat!("\n\nC: `", $c_name, "`.")]
                    pub const $variant: Self = Self($value);
                )*

                /// The value as the interface carries it.
                pub const fn raw(self) -> $repr {
                    self.0
                }

                /// The public header's name of this value, if it has one.
                pub const fn c_name(self) -> Option<&'static str> {
                    $( if self.0 == Self::$variant.0 { return Some($c_name); } )*
                    None
                }
            }

            impl From<$repr> for $name {
                fn from(raw: $repr) -> Self {
                    Self(raw)
                }
            }

            impl core::fmt::Debug for $name {
                fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                    match self.c_name() {
                        Some(name) => f.write_str(name),
                        None => write!(f, concat!(stringify!($name), "({:#x})"), self.0),
                    }
                }
            }
        )*

        pub(crate) const ENUMS: &[$crate::tables::Constant] = &[$($(
            $crate::tables::Constant { c_name: $c_name, value: $name::$variant.0 as i128 },
        )*)*];
    };
}

/// Plain constants, named as in the header unless `=> "C name"` follows.
macro_rules! abi_consts {
    ($( $(#[$meta:meta])* pub const $name:ident: $ty:ty = $value:expr $(=> $c_name:literal)?; )*) => {
        $(
            $(#[$meta])*
            pub const $name: $ty = $value;
        )*

        pub(crate) const CONSTS: &[$crate::tables::Constant] = &[$(
            $crate::tables::Constant { c_name: first_literal!($($c_name,)? stringify!($name),), value: $name as i128 },
        )*];
    };
}
