//! What a compute function's signature has to look like, and what is said where it does not.

use proc_macro2::Ident;
use syn::{FnArg, ImplItemFn, Pat, Type};

use crate::types;

/// Checks everything but the arguments and the value.
pub(crate) fn check(method: &ImplItemFn) -> syn::Result<()> {
    check_receiver(method)?;
    check_context(method)?;
    check_form(method)
}

fn check_receiver(method: &ImplItemFn) -> syn::Result<()> {
    let name = &method.sig.ident;
    let arguments = if typed_inputs(method).count() > 1 { ", .." } else { "" };
    match method.sig.inputs.first() {
        Some(FnArg::Receiver(receiver)) if receiver.colon_token.is_some() => Err(syn::Error::new_spanned(
            receiver,
            format!(
                "`{name}` takes `{}`; a compute function is called on its handle: write `&self`",
                format_args!("self: {}", types::text(&receiver.ty))
            ),
        )),
        Some(FnArg::Receiver(receiver)) if receiver.reference.is_none() => {
            Err(syn::Error::new_spanned(receiver, format!("`{name}` takes `self` by value; write `&self`")))
        }
        Some(FnArg::Receiver(receiver)) if receiver.mutability.is_some() => Err(syn::Error::new_spanned(
            receiver,
            format!(
                "`{name}` takes `&mut self`; a compute function is read from many threads: write `&self`, and keep what changes \
                 behind a lock or in a source"
            ),
        )),
        Some(FnArg::Receiver(receiver)) if receiver.lifetime().is_some() => {
            Err(syn::Error::new_spanned(receiver, format!("the receiver of `{name}` has a lifetime; write `&self`")))
        }
        Some(FnArg::Receiver(_)) => Ok(()),
        _ => Err(syn::Error::new_spanned(
            name,
            format!(
                "`{name}` has a context but no `&self`; write `fn {name}(&self, cx: &Cx{arguments})`, or move it to an impl \
                 block without `#[compute]`"
            ),
        )),
    }
}

fn check_context(method: &ImplItemFn) -> syn::Result<()> {
    let name = &method.sig.ident;
    let Some(first) = typed_inputs(method).next().filter(|first| is_context(&first.ty)) else {
        if let Some(late) = typed_inputs(method).find(|input| is_context(&input.ty)) {
            return Err(syn::Error::new_spanned(
                late,
                format!("the context of `{name}` is not its first argument; write `fn {name}(&self, cx: &Cx, ..)`"),
            ));
        }
        return Err(syn::Error::new_spanned(
            name,
            format!("`{name}` has `#[compute]` but no context; write `fn {name}(&self, cx: &Cx, ..)`, or remove the attribute"),
        ));
    };
    let written = plain_name(&first.pat).map_or_else(|| "cx".to_owned(), Ident::to_string);
    match &*first.ty {
        Type::Reference(reference) if reference.mutability.is_some() => Err(syn::Error::new_spanned(
            &first.ty,
            format!("`{name}` takes its context as `&mut Cx`; reads need no `mut`: write `{written}: &Cx`"),
        )),
        Type::Reference(reference) if reference.lifetime.is_some() => {
            Err(syn::Error::new_spanned(&first.ty, format!("the context of `{name}` has a lifetime; write `{written}: &Cx`")))
        }
        Type::Reference(_) => Ok(()),
        _ => Err(syn::Error::new_spanned(&first.ty, format!("`{name}` takes its context by value; write `{written}: &Cx`"))),
    }
}

fn check_form(method: &ImplItemFn) -> syn::Result<()> {
    let name = &method.sig.ident;
    if let Some(parameter) = method.sig.generics.params.first() {
        let (over, instead) = match parameter {
            syn::GenericParam::Lifetime(lifetime) => (&lifetime.lifetime.ident, "take and return types that own what they hold"),
            syn::GenericParam::Type(ty) => (&ty.ident, "name the type, or make the impl block generic over it"),
            syn::GenericParam::Const(constant) => (&constant.ident, "make it an argument, or make the impl block generic over it"),
        };
        let tick = if matches!(parameter, syn::GenericParam::Lifetime(_)) { "'" } else { "" };
        return Err(syn::Error::new_spanned(
            parameter,
            format!("`{name}` is generic over `{tick}{over}`; a compute function has one key type and one value type: {instead}"),
        ));
    }
    if let Some(clause) = &method.sig.generics.where_clause {
        return Err(syn::Error::new_spanned(clause, format!("`{name}` has a `where` clause; move it to the impl block")));
    }
    let odd = [
        method.sig.constness.map(|token| (token.span, "const")),
        method.sig.unsafety.map(|token| (token.span, "unsafe")),
        method.sig.abi.as_ref().map(|abi| (abi.extern_token.span, "extern")),
        method.defaultness.map(|token| (token.span, "default")),
    ];
    if let Some((span, word)) = odd.into_iter().flatten().next() {
        let with_async = if method.sig.asyncness.is_some() { "async " } else { "" };
        return Err(syn::Error::new(
            span,
            format!("`{name}` is `{word}`, which a compute function cannot be; write `{with_async}fn {name}`"),
        ));
    }
    Ok(())
}

/// The type of the value; refuses one that borrows or has no name.
pub(crate) fn owned_value(ty: &Type, method: &Ident) -> syn::Result<Type> {
    if let Some(found) = types::first_borrow(ty) {
        let instead = match ty {
            Type::Reference(reference) => {
                format!("return `{}`", types::owned_text(&reference.elem))
            }
            _ => "return a type that owns what it holds".to_owned(),
        };
        return Err(syn::Error::new_spanned(found, format!("`{method}` returns a borrow, and its value is kept: {instead}")));
    }
    if let Some(found) = types::first_opaque(ty) {
        return Err(syn::Error::new_spanned(
            found,
            format!("`{method}` returns an `impl` type, and its value is kept and handed out: name the type"),
        ));
    }
    Ok(ty.clone())
}

pub(crate) fn is_context(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => is_context(&reference.elem),
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Cx" && last.arguments.is_none()),
        _ => false,
    }
}

pub(crate) fn plain_name(pattern: &Pat) -> Option<&Ident> {
    match pattern {
        Pat::Ident(name) if name.by_ref.is_none() && name.subpat.is_none() => Some(&name.ident),
        _ => None,
    }
}

pub(crate) fn typed_inputs(method: &ImplItemFn) -> impl Iterator<Item = &syn::PatType> {
    method.sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(input) => Some(input),
        FnArg::Receiver(_) => None,
    })
}
