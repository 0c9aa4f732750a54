//! What the signature of a remote method has to look like, and what is said where it does not.

use proc_macro2::Ident;
use quote::ToTokens;
use syn::{FnArg, GenericParam, PatType, PathArguments, ReturnType, Signature, Type};

use super::method::Kind;
use crate::argument::{Argument, MOST_ARGUMENTS, passing};
use crate::signature::{is_context, plain_name};
use crate::types;

/// Checks everything but the types of arguments.
pub(super) fn check(sig: &Signature, kind: Kind) -> syn::Result<()> {
    check_receiver(sig)?;
    check_generics(sig)?;
    match kind {
        Kind::Regular => check_regular(sig)?,
        Kind::NoWait => check_no_wait(sig)?,
        Kind::Compute => check_compute(sig)?,
    }
    if let ReturnType::Type(_, output) = &sig.output {
        check_output(output, &sig.ident)?;
    }
    Ok(())
}

fn check_receiver(sig: &Signature) -> syn::Result<()> {
    let name = &sig.ident;
    match sig.inputs.first() {
        Some(FnArg::Receiver(receiver))
            if receiver.colon_token.is_some() || receiver.reference.is_none() || receiver.mutability.is_some() =>
        {
            let written = match receiver.colon_token {
                Some(_) => format!("self: {}", types::text(&receiver.ty)),
                None => receiver.to_token_stream().to_string().replace("& ", "&"),
            };
            Err(syn::Error::new_spanned(
                receiver,
                format!("`{name}` takes `{written}`; a service is called by many at once: write `&self`"),
            ))
        }
        Some(FnArg::Receiver(receiver)) if receiver.lifetime().is_some() => {
            Err(syn::Error::new_spanned(receiver, format!("the receiver of `{name}` has a lifetime; write `&self`")))
        }
        Some(FnArg::Receiver(_)) => Ok(()),
        _ => {
            let message = format!("`{name}` has no `&self`; write `async fn {name}(&self, ..)`, or move it out of the trait");
            Err(syn::Error::new_spanned(name, message))
        }
    }
}

fn check_generics(sig: &Signature) -> syn::Result<()> {
    let name = &sig.ident;
    if let Some(parameter) = sig.generics.params.first() {
        let over = match parameter {
            GenericParam::Lifetime(lifetime) => lifetime.lifetime.to_string(),
            GenericParam::Type(ty) => ty.ident.to_string(),
            GenericParam::Const(constant) => constant.ident.to_string(),
        };
        let message = format!("`{name}` is generic over `{over}`; what is sent has one type: name it");
        return Err(syn::Error::new_spanned(parameter, message));
    }
    if let Some(clause) = &sig.generics.where_clause {
        return Err(syn::Error::new_spanned(
            clause,
            format!("`{name}` has a `where` clause; everybody can call a remote method: remove it"),
        ));
    }
    let odd = [
        sig.constness.map(|token| (token.span, "const")),
        sig.unsafety.map(|token| (token.span, "unsafe")),
        sig.abi.as_ref().map(|abi| (abi.extern_token.span, "extern")),
        sig.variadic.as_ref().map(|variadic| (variadic.dots.spans[0], "variadic")),
    ];
    match odd.into_iter().flatten().next() {
        Some((span, word)) => Err(syn::Error::new(span, format!("`{name}` is {word}, which a remote method cannot be"))),
        None => Ok(()),
    }
}

fn check_regular(sig: &Signature) -> syn::Result<()> {
    let name = &sig.ident;
    let computed = matches!(&sig.output, ReturnType::Type(_, output) if is_computed(output));
    if computed {
        return Err(syn::Error::new_spanned(
            &sig.output,
            format!("`{name}` returns a `Computed`, whose end is pushed; write `#[compute]` on it"),
        ));
    }
    if sig.asyncness.is_none() {
        let message = format!(
            "`{name}` is not async, and its answer takes its time; write `async fn {name}`, or `#[rpc(no_wait)]` if nobody waits for one"
        );
        return Err(syn::Error::new_spanned(name, message));
    }
    match &sig.output {
        ReturnType::Default => {
            let message = format!(
                "`{name}` returns no `Result`, and any call can fail; write `-> Result<(), Failure>`, or `#[rpc(no_wait)]` if nobody waits for one"
            );
            Err(syn::Error::new_spanned(name, message))
        }
        ReturnType::Type(_, output) if types::is_primitive(output) => {
            let message =
                format!("`{name}` returns no `Result`, and any call can fail; write `-> Result<{}, Failure>`", types::text(output));
            Err(syn::Error::new_spanned(output, message))
        }
        ReturnType::Type(..) => Ok(()),
    }
}

fn check_no_wait(sig: &Signature) -> syn::Result<()> {
    let name = &sig.ident;
    match &sig.output {
        ReturnType::Type(_, output) => Err(syn::Error::new_spanned(
            output,
            format!("`{name}` is `no_wait`, so nobody hears what it returns; write `fn {name}(&self, ..)`"),
        )),
        ReturnType::Default => Ok(()),
    }
}

fn check_compute(sig: &Signature) -> syn::Result<()> {
    let name = &sig.ident;
    match &sig.output {
        ReturnType::Default => {
            let message = format!("`{name}` is a compute method and returns no value; write `-> Result<Computed<u32>, Fault>`");
            Err(syn::Error::new_spanned(name, message))
        }
        // The compiler finds out what an alias is.
        ReturnType::Type(_, output) if types::is_primitive(output) || types::is_written_result(output) && !is_computed(output) => {
            let value = match &**output {
                Type::Path(path) if path.path.segments.len() == 1 => types::text(output),
                _ => "u32".to_owned(),
            };
            let message = format!(
                "`{name}` returns a value whose end nobody could push; write `-> Result<Computed<{value}>, Fault>`, and return the generation of a \
                 function's value: `function.computed(&self.engine, &key)`"
            );
            Err(syn::Error::new_spanned(output, message))
        }
        ReturnType::Type(..) => Ok(()),
    }
}

/// Whether it is written as `Result<Computed<..>, ..>`.
fn is_computed(output: &Type) -> bool {
    let Type::Path(path) = output else { return false };
    let Some(PathArguments::AngleBracketed(list)) = path.path.segments.last().map(|last| &last.arguments) else { return false };
    let Some(syn::GenericArgument::Type(Type::Path(first))) = list.args.first() else { return false };
    first.path.segments.last().is_some_and(|last| last.ident == "Computed")
}

fn check_output(output: &Type, method: &Ident) -> syn::Result<()> {
    let refused = if let Some(found) = types::first_borrow(output) {
        (found, "returns a borrow, and what is sent owns what it holds")
    } else if let Some(found) = types::first_opaque(output) {
        (found, "returns an `impl` type, and what is sent has one type: name it")
    } else if let Some(found) = types::first_self(output) {
        (found, "returns `Self`, which its callers do not have: name the type")
    } else {
        return Ok(());
    };
    Err(syn::Error::new_spanned(refused.0, format!("`{method}` {}", refused.1)))
}

/// Who calls, if the method asks: its name, and the type without the reference.
pub(super) fn caller(sig: &Signature) -> syn::Result<Option<(Ident, Type)>> {
    let name = &sig.ident;
    for (at, input) in typed(sig).enumerate() {
        let (is_shared, ty) = match &*input.ty {
            Type::Reference(reference) => (reference.mutability.is_none() && reference.lifetime.is_none(), &*reference.elem),
            ty => (false, ty),
        };
        if !matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Caller")) {
            continue;
        }
        return match plain_name(&input.pat).filter(|_| at == 0 && is_shared) {
            Some(ident) => Ok(Some((ident.clone(), ty.clone()))),
            None => {
                let message = format!(
                    "who calls `{name}` is asked for as `{name}(&self, caller: &Caller, ..)`; if this is another type, which is sent, give it another name"
                );
                Err(syn::Error::new_spanned(input, message))
            }
        };
    }
    Ok(None)
}

fn typed(sig: &Signature) -> impl Iterator<Item = &PatType> {
    sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(input) => Some(input),
        FnArg::Receiver(_) => None,
    })
}

/// The arguments that are sent.
pub(super) fn arguments(sig: &Signature, has_caller: bool) -> syn::Result<Vec<Argument>> {
    let name = &sig.ident;
    let sent = typed(sig).skip(usize::from(has_caller));
    let arguments = sent.map(|input| argument(input, name)).collect::<syn::Result<Vec<Argument>>>()?;
    if arguments.len() > MOST_ARGUMENTS {
        let message = format!("`{name}` has {} arguments; {MOST_ARGUMENTS} are the most: group some in a struct", arguments.len());
        return Err(syn::Error::new_spanned(name, message));
    }
    Ok(arguments)
}

fn argument(input: &PatType, method: &Ident) -> syn::Result<Argument> {
    let Some(ident) = plain_name(&input.pat) else {
        let pattern = input.pat.to_token_stream();
        return Err(syn::Error::new_spanned(
            &input.pat,
            format!("`{method}` takes the pattern `{pattern}` as an argument; write a plain name"),
        ));
    };
    let ty = &*input.ty;
    if is_context(ty) {
        let message = format!(
            "`{method}` takes a context, which nobody can send; a compute method returns the `Computed` of a function, and its \
             implementation reads that with an engine it has"
        );
        return Err(syn::Error::new_spanned(input, message));
    }
    if let Some(found) = types::first_borrow(ty) {
        let (what, instead) = match ty {
            Type::Reference(reference) => {
                ("is a reference", format!("take it by value: write `{ident}: {}`", types::owned_text(&reference.elem)))
            }
            _ => ("borrows", "take a type that owns what it holds".to_owned()),
        };
        let callers = match ty {
            Type::Reference(reference) if types::is_unsized(&reference.elem) => format!(" (callers still pass `{}`)", types::text(ty)),
            _ => String::new(),
        };
        return Err(syn::Error::new_spanned(found, format!("argument `{ident}` of `{method}` {what}; {instead}{callers}")));
    }
    if let Some(found) = types::first_opaque(ty).or_else(|| types::first_self(ty)) {
        let message =
            format!("argument `{ident}` of `{method}` has no type of its own; what is sent has one: name it, as in `{ident}: u32`");
        return Err(syn::Error::new_spanned(found, message));
    }
    Ok(Argument { ident: ident.clone(), ty: ty.clone(), passing: passing(ty) })
}
