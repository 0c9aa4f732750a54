//! The arguments of a function: how they are declared, passed by its readers, and put together as a key.

use proc_macro2::{Ident, TokenStream};
use quote::{ToTokens, quote};
use syn::{GenericArgument, PathArguments, Type};

use crate::method::Method;
use crate::signature::{is_context, plain_name};
use crate::types;

/// The most arguments one function can have: the longest tuple that `Parts` looks up.
pub(crate) const MOST_ARGUMENTS: usize = 8;

pub(crate) struct Argument {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
    pub(crate) passing: Passing,
}

/// How a reader hands over an argument.
pub(crate) enum Passing {
    Value,
    Str,
    Slice(Box<Type>),
}

impl Argument {
    pub(crate) fn read(input: &syn::PatType, method: &Ident) -> syn::Result<Argument> {
        let Some(ident) = plain_name(&input.pat) else {
            let pattern = input.pat.to_token_stream();
            return Err(syn::Error::new_spanned(
                &input.pat,
                format!(
                    "`{method}` takes the pattern `{pattern}` as an argument; the arguments are the key: write a plain name, \
                     and take it apart in the body"
                ),
            ));
        };
        if is_context(&input.ty) {
            return Err(syn::Error::new_spanned(
                input,
                format!("`{method}` has a second context `{ident}`; a compute function has one, right after `&self`"),
            ));
        }
        let ty = (*input.ty).clone();
        if let Some(found) = types::first_borrow(&ty) {
            let (what, instead) = match &ty {
                Type::Reference(reference) => {
                    ("is a reference", format!("take it by value: write `{ident}: {}`", types::owned_text(&reference.elem)))
                }
                _ => ("borrows", "take a type that owns what it holds".to_owned()),
            };
            let readers = match &ty {
                Type::Reference(reference) if types::is_unsized(&reference.elem) => {
                    format!(" (readers still pass `{}`)", types::text(&ty))
                }
                _ => String::new(),
            };
            return Err(syn::Error::new_spanned(found, format!("argument `{ident}` of `{method}` {what}; {instead}{readers}")));
        }
        if let Some(found) = types::first_opaque(&ty) {
            return Err(syn::Error::new_spanned(
                found,
                format!("argument `{ident}` of `{method}` is an `impl` type; a key has one type: name it, as in `{ident}: u32`"),
            ));
        }
        let passing = passing(&ty);
        Ok(Argument { ident: ident.clone(), ty, passing })
    }
}

/// `String` and `Vec<T>` are looked up by what they borrow as, so that a hit allocates nothing.
pub(crate) fn passing(ty: &Type) -> Passing {
    let Type::Path(path) = ty else {
        return Passing::Value;
    };
    let Some(last) = path.path.segments.last().filter(|_| path.qself.is_none()) else {
        return Passing::Value;
    };
    match &last.arguments {
        PathArguments::None if last.ident == "String" => Passing::Str,
        PathArguments::AngleBracketed(list) if last.ident == "Vec" && list.args.len() == 1 => match &list.args[0] {
            GenericArgument::Type(item) => Passing::Slice(Box::new(item.clone())),
            _ => Passing::Value,
        },
        _ => Passing::Value,
    }
}

pub(crate) fn parameters(arguments: &[Argument]) -> Vec<TokenStream> {
    let parameter = |argument: &Argument| {
        let (ident, ty) = (&argument.ident, &argument.ty);
        match &argument.passing {
            Passing::Value => quote!(#ident: #ty),
            Passing::Str => quote!(#ident: &str),
            Passing::Slice(item) => quote!(#ident: &[#item]),
        }
    };
    arguments.iter().map(parameter).collect()
}

/// The arguments of a reader by reference.
pub(crate) fn references(arguments: &[Argument]) -> Vec<TokenStream> {
    let reference = |argument: &Argument| {
        let ident = &argument.ident;
        match argument.passing {
            Passing::Value => quote!(&#ident),
            Passing::Str | Passing::Slice(_) => quote!(#ident),
        }
    };
    arguments.iter().map(reference).collect()
}

/// The key as it is looked up: by reference, and a tuple by a tuple of references.
pub(crate) fn lookup(method: &Method) -> TokenStream {
    match references(&method.arguments).as_slice() {
        [] => quote!(&()),
        [one] => quote!(#one),
        several => quote!(&::wellspring::Parts((#(#several),*))),
    }
}

pub(crate) fn key_type(method: &Method) -> TokenStream {
    let types: Vec<_> = method.arguments.iter().map(|argument| &argument.ty).collect();
    match types.as_slice() {
        [one] => quote!(#one),
        several => quote!((#(#several),*)),
    }
}
