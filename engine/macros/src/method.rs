//! One compute function: read from its method, checked, and split into signature and body.

use proc_macro2::Ident;
use quote::format_ident;
use syn::ext::IdentExt;
use syn::{Attribute, ImplItemFn, ReturnType, Type, Visibility, parse_quote};

use crate::argument::{Argument, MOST_ARGUMENTS};
use crate::options::{MethodOptions, is_compute};
use crate::own_type::OwnType;
use crate::signature::{self, is_context, owned_value, plain_name, typed_inputs};
use crate::types::{self, Dependence};

pub(crate) struct Method {
    pub(crate) ident: Ident,
    pub(crate) vis: Visibility,
    pub(crate) is_async: bool,
    pub(crate) arguments: Vec<Argument>,
    /// The return type as written, `()` when there is none.
    pub(crate) value: Type,
    pub(crate) options: MethodOptions,
    /// `#[cfg]`: goes on everything generated for this function.
    pub(crate) cfgs: Vec<Attribute>,
    /// What a caller should see: documentation, `#[deprecated]`.
    pub(crate) shown: Vec<Attribute>,
    /// The method as written, with another name, for the handle.
    pub(crate) body: ImplItemFn,
}

impl Method {
    /// Whether the method is meant as a compute function: it has a context, or says so.
    pub(crate) fn is_meant(method: &ImplItemFn) -> bool {
        method.attrs.iter().any(is_compute) || typed_inputs(method).any(|input| is_context(&input.ty))
    }

    pub(crate) fn read(method: &ImplItemFn, own: &OwnType) -> syn::Result<Method> {
        let mut body = method.clone();
        own.name_in(&mut body);
        let name = method.sig.ident.clone();
        let (ours, rest): (Vec<_>, Vec<_>) = body.attrs.drain(..).partition(is_compute);
        let (cfgs, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|attribute| attribute.path().is_ident("cfg"));
        let (shown, rest): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|attribute| attribute.path().is_ident("doc") || attribute.path().is_ident("deprecated"));
        let options = MethodOptions::from_attributes(&ours, &name)?;

        signature::check(method)?;
        let arguments = typed_inputs(&body).skip(1).map(|input| Argument::read(input, &name)).collect::<syn::Result<Vec<Argument>>>()?;
        if arguments.len() > MOST_ARGUMENTS {
            return Err(syn::Error::new_spanned(
                &name,
                format!("`{name}` has {} arguments; {MOST_ARGUMENTS} are the most: group some in a struct", arguments.len()),
            ));
        }
        let value = match &body.sig.output {
            ReturnType::Default => parse_quote!(()),
            ReturnType::Type(_, ty) => owned_value(ty, &name)?,
        };
        if types::dependence(&value, own.generics()) == Dependence::OnParameter && options.cut_off.is_none() {
            return Err(syn::Error::new_spanned(
                &value,
                format!(
                    "`{name}` returns a type that depends on a generic parameter, so whether it can be compared is not known \
                     here; write `#[compute(cut_off = eq)]` or `#[compute(cut_off = never)]` on `{name}`"
                ),
            ));
        }

        // A function that reads nothing else has no use for its context, and still has to take it.
        let context = typed_inputs(&body).next().and_then(|input| plain_name(&input.pat)).cloned();
        if let Some(context) = context.filter(|context| !context.to_string().starts_with('_')) {
            body.block.stmts.insert(0, parse_quote!(let _ = #context;));
        }
        body.vis = Visibility::Inherited;
        body.attrs = rest;
        body.attrs.extend(cfgs.iter().cloned());
        body.sig.ident = format_ident!("__{}_body", name, span = name.span());
        Ok(Method {
            ident: name,
            vis: method.vis.clone(),
            is_async: method.sig.asyncness.is_some(),
            arguments,
            value,
            options,
            cfgs,
            shown,
            body,
        })
    }

    /// The function's name inside its service: the method's, unless the options give another.
    pub(crate) fn name(&self) -> String {
        self.options.name.as_ref().map_or_else(|| self.ident.unraw().to_string(), syn::LitStr::value)
    }
}
