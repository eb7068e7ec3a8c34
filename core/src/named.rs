//! Enums whose variants have a name in the configuration, in answers or in metrics.

/// Defines a plain, ordered enum with `ALL`, its variants in the order of their indices, and `name`, the stable
/// name of a variant. One list of variants serves both, so neither can lack a variant.
#[macro_export]
macro_rules! named {
    ($(#[$of_enum:meta])* $vis:vis enum $Enum:ident {
        $($(#[$of_variant:meta])* $Variant:ident = $name:literal,)+
    }) => {
        $(#[$of_enum])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $Enum {
            $($(#[$of_variant])* $Variant,)+
        }

        impl $Enum {
            /// All variants, in the order of their indices.
            $vis const ALL: [Self; [$($name),+].len()] = [$(Self::$Variant),+];

            /// The stable name of a variant.
            $vis const fn name(self) -> &'static str {
                match self {
                    $(Self::$Variant => $name,)+
                }
            }
        }
    };
}
