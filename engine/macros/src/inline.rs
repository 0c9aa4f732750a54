//! `#[derive(Inline)]`: a newtype whose value fits the engine's value column.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Token, Type};

pub(crate) fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let Parts { value: field, markers } = parts(input)?;
    let bound = quote_spanned!(field.span()=> #field: ::wellspring::Inline);
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let predicates = where_clause.map(|clause| clause.predicates.iter().collect::<Vec<_>>()).unwrap_or_default();

    // For a generic struct no size can be asserted before it is used; there `repr(transparent)` is what guarantees it.
    let size = if input.generics.params.is_empty() {
        let message = format!("`{name}` is not laid out like its field: remove its `repr(align)`, or write `#[repr(transparent)]`");
        let too_large = format!("`{name}` is larger than 8 bytes: drop `Inline`, its values are then kept behind a pointer");
        quote! {
            const _: () = {
                ::core::assert!(
                    ::core::mem::size_of::<#name>() == ::core::mem::size_of::<#field>()
                        && ::core::mem::align_of::<#name>() <= ::core::mem::align_of::<#field>(),
                    #message
                );
                ::core::assert!(::core::mem::size_of::<#name>() <= 8, #too_large);
            };
        }
    } else {
        TokenStream::new()
    };
    Ok(quote! {
        #[automatically_derived]
        unsafe impl #impl_generics ::wellspring::Inline for #name #type_generics
        where
            #(#predicates,)*
            #bound,
            #(#markers: ::wellspring::__private::Marker,)*
            Self: ::core::marker::Copy + ::core::marker::Send + ::core::marker::Sync + 'static,
        {}
        #size
    })
}

/// The types of a newtype's fields.
struct Parts<'a> {
    value: &'a Type,
    /// Fields beside it that hold nothing. That they are what they are called is checked by a bound.
    markers: Vec<&'a Type>,
}

fn parts(input: &DeriveInput) -> syn::Result<Parts<'_>> {
    let name = &input.ident;
    let fields = match &input.data {
        Data::Struct(data) => &data.fields,
        Data::Enum(_) => {
            return refuse(
                input,
                &format!(
                    "`{name}` is an enum; `Inline` is for a struct of one inline field: write `struct {name}(u8);`, or drop \
                     `Inline` (the values of `{name}` are then kept behind a pointer)"
                ),
            );
        }
        Data::Union(_) => {
            return refuse(
                input,
                &format!("`{name}` is a union; `Inline` is for a struct of one inline field: write `struct {name}(u64);`"),
            );
        }
    };
    let transparent = is_transparent(input)?;
    if !transparent && !input.generics.params.is_empty() {
        return refuse(
            input,
            &format!("`{name}` is generic, so its layout has to be promised; write `#[repr(transparent)]` above `struct {name}`"),
        );
    }
    let (markers, values): (Vec<&Type>, Vec<&Type>) = fields.iter().map(|field| &field.ty).partition(|ty| transparent && is_phantom(ty));
    match values.as_slice() {
        [value] => Ok(Parts { value, markers }),
        [] => refuse(input, &format!("`{name}` has no field that holds a value; drop `Inline`, or give it one: `struct {name}(u32);`")),
        _ => refuse(
            input,
            &format!(
                "`{name}` has {} fields; `Inline` is for a struct of one inline field: pack them into one, as in \
                 `struct {name}(u64);`, or drop `Inline` (the values of `{name}` are then kept behind a pointer)",
                fields.len()
            ),
        ),
    }
}

fn is_transparent(input: &DeriveInput) -> syn::Result<bool> {
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        let hints = attribute.parse_args_with(Punctuated::<syn::Meta, Token![,]>::parse_terminated)?;
        if hints.iter().any(|hint| hint.path().is_ident("transparent")) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_phantom(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "PhantomData"))
}

fn refuse<T>(input: &DeriveInput, message: &str) -> syn::Result<T> {
    Err(syn::Error::new(input.ident.span(), message))
}
