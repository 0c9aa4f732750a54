//! One remote method: read from the trait, checked, and its future made one that can be sent between threads.

use proc_macro2::Ident;
use syn::ext::IdentExt;
use syn::{Attribute, ReturnType, TraitItemFn, Type, parse_quote, parse_quote_spanned};

use super::at;
use super::options::{MethodOptions, ServiceOptions};
use super::signature;
use crate::argument::Argument;
use crate::options::is_compute;

/// What kind of calls a method takes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Regular,
    NoWait,
    Compute,
}

pub(super) struct Method {
    pub(super) ident: Ident,
    pub(super) kind: Kind,
    pub(super) is_async: bool,
    /// Who calls, which is not sent: the name, and the type of which the method takes a reference.
    pub(super) caller: Option<(Ident, Type)>,
    pub(super) arguments: Vec<Argument>,
    /// The return type as written, `()` when there is none.
    pub(super) output: Type,
    /// The name on the wire, without the service's: `GetAll:1`.
    pub(super) wire: String,
    /// Callers hear of values that have changed only.
    pub(super) verified: bool,
    /// What calls of it may take on a server.
    pub(super) limits: Option<syn::Expr>,
    /// `#[cfg]`: goes on everything generated for this method.
    pub(super) cfgs: Vec<Attribute>,
    /// What a caller should see: documentation, `#[deprecated]`.
    pub(super) shown: Vec<Attribute>,
}

impl Method {
    /// Takes what is ours out of the method.
    pub(super) fn read(method: &mut TraitItemFn, service: &ServiceOptions) -> syn::Result<Method> {
        let name = method.sig.ident.clone();
        let (ours, rest): (Vec<_>, Vec<_>) = method.attrs.drain(..).partition(is_rpc);
        let (compute, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(is_compute);
        method.attrs = rest;
        let options = MethodOptions::from_attributes(&ours, &name)?;
        if let Some(attribute) = compute.iter().find(|attribute| !matches!(attribute.meta, syn::Meta::Path(_))) {
            let message =
                format!("`#[compute]` on `{name}` has no options here; they go on the function of the engine that it is the value of");
            return Err(syn::Error::new_spanned(attribute, message));
        }
        let kind = match (compute.first(), options.no_wait) {
            (Some(attribute), true) => {
                let message = format!("`{name}` is `no_wait`, so nobody hears of its value; remove one of the two");
                return Err(syn::Error::new_spanned(attribute, message));
            }
            (Some(_), false) => Kind::Compute,
            (None, true) => Kind::NoWait,
            (None, false) => Kind::Regular,
        };
        if let Some(verified) = options.verified.as_ref().filter(|_| kind != Kind::Compute) {
            let message = format!(
                "`{name}` has no value that its callers hear of, so there is none to verify; write `#[compute]` on it, or remove `verified`"
            );
            return Err(syn::Error::new(verified.span(), message));
        }
        signature::check(&method.sig, kind)?;
        let caller = signature::caller(&method.sig)?;
        let arguments = signature::arguments(&method.sig, caller.is_some())?;
        let output = match &method.sig.output {
            ReturnType::Default => parse_quote!(()),
            ReturnType::Type(_, output) => (**output).clone(),
        };
        // The peer's methods count the cancellation token they have, which is never sent.
        let token = options.token.or(service.token).unwrap_or(true);
        let own = options.name.map_or_else(|| pascal(&name), |name| name.value());
        let wire = format!("{own}:{}", arguments.len() + usize::from(token));
        let is = |names: &[&str]| {
            let one = |attribute: &&Attribute| names.iter().any(|name| attribute.path().is_ident(name));
            method.attrs.iter().filter(one).cloned().collect()
        };
        let (cfgs, shown) = (is(&["cfg"]), is(&["doc", "deprecated"]));
        let is_async = method.sig.asyncness.is_some();
        if is_async {
            send_future(method, &output);
        }
        let (verified, limits) = (options.verified.is_some(), options.limits);
        Ok(Method { ident: name, kind, is_async, caller, arguments, output, wire, verified, limits, cfgs, shown })
    }
}

/// Of `async fn` in a trait nobody could say that its future is `Send`. Implementations are written as `async fn` all the same.
fn send_future(method: &mut TraitItemFn, output: &Type) {
    method.sig.asyncness = None;
    method.sig.output = parse_quote_spanned! {at(output)=>
        -> impl ::core::future::Future<Output = #output> + ::core::marker::Send
    };
    if let Some(body) = &method.default {
        method.default = Some(parse_quote_spanned!(at(body)=> { async move #body }));
    }
}

fn is_rpc(attribute: &Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|last| last.ident == "rpc")
}

/// `get_all` as the peer's languages write it: `GetAll`.
fn pascal(name: &Ident) -> String {
    let word = |word: &str| {
        let mut letters = word.chars();
        letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect::<String>()
    };
    let name = name.unraw().to_string();
    let pascal: String = name.split('_').map(word).collect();
    if pascal.is_empty() { name } else { pascal }
}
