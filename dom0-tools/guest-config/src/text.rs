//! Values that are text outside and typed inside.

/// Gives `$type`, which implements `Display` and `FromStr`, the same form in JSON.
macro_rules! serde_as_text {
    ($type:ty) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(
                &self,
                serializer: S,
            ) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> std::result::Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(<D::Error as serde::de::Error>::custom)
            }
        }
    };
}

/// Gives `$type` the words of its variants: `Display`, `FromStr` and the same form in JSON.
macro_rules! words {
    ($type:ident, $option:literal, $($variant:ident = $word:literal $(| $other:literal)*),+ $(,)?) => {
        impl $type {
            /// The words that configuration files use.
            pub const WORDS: &[&str] = &[$($word),+];

            /// The word that configuration files use.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $type {
            type Err = crate::Error;

            fn from_str(text: &str) -> crate::Result<Self> {
                match text {
                    $($word $(| $other)* => Ok(Self::$variant),)+
                    _ => Err(crate::Error::new(
                        $option,
                        format!("`{text}` is not one of {}", Self::WORDS.join(", ")),
                    )),
                }
            }
        }

        crate::text::serde_as_text!($type);
    };
}

pub(crate) use serde_as_text;
pub(crate) use words;
