//! What a method takes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::caller::Caller;
use crate::calling::Calling;
use crate::wire::{Arguments, ReadError, WriteError, Writer};

/// The arguments of a method: a tuple of up to eight, each of which can be read. Before them there may be a [`Caller`], which is not one of them.
pub trait FromArguments: Sized + Send + 'static {
    /// Reads them. Fewer than there should be are null, more are passed over.
    ///
    /// # Errors
    /// If one is not what is expected.
    fn from_arguments(calling: &Calling<'_>, arguments: &mut Arguments<'_>) -> Result<Self, ReadError>;
}

/// The arguments of a call: a tuple of up to eight, each of which can be written.
pub trait ToArguments {
    /// Writes them.
    ///
    /// # Errors
    /// If the format has no way to write one.
    fn to_arguments(&self, out: &mut Writer<'_>) -> Result<(), WriteError>;
}

macro_rules! tuples {
    ($($($name:ident)*;)*) => {$(
        impl<$($name: DeserializeOwned + Send + 'static),*> FromArguments for ($($name,)*) {
            fn from_arguments(_: &Calling<'_>, _arguments: &mut Arguments<'_>) -> Result<Self, ReadError> {
                Ok(($(_arguments.read::<$name>()?,)*))
            }
        }

        impl<$($name: DeserializeOwned + Send + 'static),*> FromArguments for (Caller, $($name,)*) {
            fn from_arguments(calling: &Calling<'_>, _arguments: &mut Arguments<'_>) -> Result<Self, ReadError> {
                Ok((calling.caller().clone(), $(_arguments.read::<$name>()?,)*))
            }
        }

        #[allow(non_snake_case, reason = "a name for each member of a tuple")]
        impl<$($name: Serialize),*> ToArguments for ($($name,)*) {
            fn to_arguments(&self, _out: &mut Writer<'_>) -> Result<(), WriteError> {
                let ($($name,)*) = self;
                $(_out.value($name)?;)*
                Ok(())
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
