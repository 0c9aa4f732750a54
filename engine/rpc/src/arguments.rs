//! What a method takes.

use serde::de::DeserializeOwned;

use crate::wire::{Arguments, ReadError};

/// The arguments of a method: a tuple of up to eight, each of which can be read.
pub trait FromArguments: Sized + Send + 'static {
    /// Reads them. Fewer than there should be are null, more are passed over.
    ///
    /// # Errors
    /// If one is not what is expected.
    fn from_arguments(arguments: &mut Arguments<'_>) -> Result<Self, ReadError>;
}

macro_rules! tuples {
    ($($($name:ident)*;)*) => {$(
        impl<$($name: DeserializeOwned + Send + 'static),*> FromArguments for ($($name,)*) {
            fn from_arguments(_arguments: &mut Arguments<'_>) -> Result<Self, ReadError> {
                Ok(($(_arguments.read::<$name>()?,)*))
            }
        }
    )*};
}

tuples! {
    ;
    A;
    A B;
    A B C;
    A B C D;
    A B C D E;
    A B C D E F;
    A B C D E F G;
    A B C D E F G H;
}
