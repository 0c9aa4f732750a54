//! One compute function: read from its method, checked, and split into signature and body.

use proc_macro2::Ident;
use quote::{ToTokens, format_ident};
use syn::ext::IdentExt;
use syn::{
    Attribute, FnArg, GenericArgument, ImplItemFn, Pat, PathArguments, ReturnType, Type,
    Visibility, parse_quote,
};

use crate::options::{MethodOptions, is_compute};
use crate::own_type::OwnType;
use crate::types::{self, Dependence};

/// The most arguments one function can have: the longest tuple that `Parts` looks up.
pub(crate) const MOST_ARGUMENTS: usize = 8;

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

impl Method {
    /// Whether the method is meant as a compute function: it has a context, or says so.
    pub(crate) fn is_meant(method: &ImplItemFn) -> bool {
        method.attrs.iter().any(is_compute)
            || typed_inputs(method).any(|input| is_context(&input.ty))
    }

    pub(crate) fn read(method: &ImplItemFn, own: &OwnType) -> syn::Result<Method> {
        let mut body = method.clone();
        own.name_in(&mut body);
        let name = method.sig.ident.clone();
        let (ours, rest): (Vec<_>, Vec<_>) = body.attrs.drain(..).partition(is_compute);
        let (cfgs, rest): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|attribute| attribute.path().is_ident("cfg"));
        let (shown, rest): (Vec<_>, Vec<_>) = rest.into_iter().partition(|attribute| {
            attribute.path().is_ident("doc") || attribute.path().is_ident("deprecated")
        });
        let options = MethodOptions::from_attributes(&ours, &name)?;

        check_receiver(method)?;
        check_context(method)?;
        check_signature(method)?;
        let arguments = typed_inputs(&body)
            .skip(1)
            .map(|input| Argument::read(input, &name))
            .collect::<syn::Result<Vec<Argument>>>()?;
        if arguments.len() > MOST_ARGUMENTS {
            return Err(syn::Error::new_spanned(
                &name,
                format!(
                    "`{name}` has {} arguments; {MOST_ARGUMENTS} are the most: group some in a struct",
                    arguments.len()
                ),
            ));
        }
        let value = match &body.sig.output {
            ReturnType::Default => parse_quote!(()),
            ReturnType::Type(_, ty) => owned_value(ty, &name)?,
        };
        if types::dependence(&value, own.generics()) == Dependence::OnParameter
            && options.cut_off.is_none()
        {
            return Err(syn::Error::new_spanned(
                &value,
                format!(
                    "`{name}` returns a type that depends on a generic parameter, so whether it can be compared is not known \
                     here; write `#[compute(cut_off = eq)]` or `#[compute(cut_off = never)]` on `{name}`"
                ),
            ));
        }

        // A function that reads nothing else has no use for its context, and still has to take it.
        let context = typed_inputs(&body)
            .next()
            .and_then(|input| plain_name(&input.pat))
            .cloned();
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
        self.options
            .name
            .as_ref()
            .map_or_else(|| self.ident.unraw().to_string(), syn::LitStr::value)
    }
}

impl Argument {
    fn read(input: &syn::PatType, method: &Ident) -> syn::Result<Argument> {
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
                format!(
                    "`{method}` has a second context `{ident}`; a compute function has one, right after `&self`"
                ),
            ));
        }
        let ty = (*input.ty).clone();
        if let Some(found) = types::first_borrow(&ty) {
            let (what, instead) = match &ty {
                Type::Reference(reference) => (
                    "is a reference",
                    format!(
                        "take it by value: write `{ident}: {}`",
                        types::owned_text(&reference.elem)
                    ),
                ),
                _ => ("borrows", "take a type that owns what it holds".to_owned()),
            };
            let readers = match &ty {
                Type::Reference(reference) if types::is_unsized(&reference.elem) => {
                    format!(" (readers still pass `{}`)", types::text(&ty))
                }
                _ => String::new(),
            };
            return Err(syn::Error::new_spanned(
                found,
                format!("argument `{ident}` of `{method}` {what}; {instead}{readers}"),
            ));
        }
        if let Some(found) = types::first_opaque(&ty) {
            return Err(syn::Error::new_spanned(
                found,
                format!(
                    "argument `{ident}` of `{method}` is an `impl` type; a key has one type: name it, as in `{ident}: u32`"
                ),
            ));
        }
        let passing = passing(&ty);
        Ok(Argument {
            ident: ident.clone(),
            ty,
            passing,
        })
    }
}

fn check_receiver(method: &ImplItemFn) -> syn::Result<()> {
    let name = &method.sig.ident;
    let arguments = if typed_inputs(method).count() > 1 {
        ", .."
    } else {
        ""
    };
    match method.sig.inputs.first() {
        Some(FnArg::Receiver(receiver)) if receiver.colon_token.is_some() => {
            Err(syn::Error::new_spanned(
                receiver,
                format!(
                    "`{name}` takes `{}`; a compute function is called on its handle: write `&self`",
                    format_args!("self: {}", types::text(&receiver.ty))
                ),
            ))
        }
        Some(FnArg::Receiver(receiver)) if receiver.reference.is_none() => {
            Err(syn::Error::new_spanned(
                receiver,
                format!("`{name}` takes `self` by value; write `&self`"),
            ))
        }
        Some(FnArg::Receiver(receiver)) if receiver.mutability.is_some() => {
            Err(syn::Error::new_spanned(
                receiver,
                format!(
                    "`{name}` takes `&mut self`; a compute function is read from many threads: write `&self`, and keep what changes \
                 behind a lock or in a source"
                ),
            ))
        }
        Some(FnArg::Receiver(receiver)) if receiver.lifetime().is_some() => {
            Err(syn::Error::new_spanned(
                receiver,
                format!("the receiver of `{name}` has a lifetime; write `&self`"),
            ))
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
    let Some(first) = typed_inputs(method)
        .next()
        .filter(|first| is_context(&first.ty))
    else {
        if let Some(late) = typed_inputs(method).find(|input| is_context(&input.ty)) {
            return Err(syn::Error::new_spanned(
                late,
                format!(
                    "the context of `{name}` is not its first argument; write `fn {name}(&self, cx: &Cx, ..)`"
                ),
            ));
        }
        return Err(syn::Error::new_spanned(
            name,
            format!(
                "`{name}` has `#[compute]` but no context; write `fn {name}(&self, cx: &Cx, ..)`, or remove the attribute"
            ),
        ));
    };
    let written = plain_name(&first.pat).map_or_else(|| "cx".to_owned(), Ident::to_string);
    match &*first.ty {
        Type::Reference(reference) if reference.mutability.is_some() => {
            Err(syn::Error::new_spanned(
                &first.ty,
                format!(
                    "`{name}` takes its context as `&mut Cx`; reads need no `mut`: write `{written}: &Cx`"
                ),
            ))
        }
        Type::Reference(reference) if reference.lifetime.is_some() => Err(syn::Error::new_spanned(
            &first.ty,
            format!("the context of `{name}` has a lifetime; write `{written}: &Cx`"),
        )),
        Type::Reference(_) => Ok(()),
        _ => Err(syn::Error::new_spanned(
            &first.ty,
            format!("`{name}` takes its context by value; write `{written}: &Cx`"),
        )),
    }
}

fn check_signature(method: &ImplItemFn) -> syn::Result<()> {
    let name = &method.sig.ident;
    if let Some(parameter) = method.sig.generics.params.first() {
        let (over, instead) = match parameter {
            syn::GenericParam::Lifetime(lifetime) => (
                &lifetime.lifetime.ident,
                "take and return types that own what they hold",
            ),
            syn::GenericParam::Type(ty) => (
                &ty.ident,
                "name the type, or make the impl block generic over it",
            ),
            syn::GenericParam::Const(constant) => (
                &constant.ident,
                "make it an argument, or make the impl block generic over it",
            ),
        };
        let tick = if matches!(parameter, syn::GenericParam::Lifetime(_)) {
            "'"
        } else {
            ""
        };
        return Err(syn::Error::new_spanned(
            parameter,
            format!(
                "`{name}` is generic over `{tick}{over}`; a compute function has one key type and one value type: {instead}"
            ),
        ));
    }
    if let Some(clause) = &method.sig.generics.where_clause {
        return Err(syn::Error::new_spanned(
            clause,
            format!("`{name}` has a `where` clause; move it to the impl block"),
        ));
    }
    let odd = [
        method.sig.constness.map(|token| (token.span, "const")),
        method.sig.unsafety.map(|token| (token.span, "unsafe")),
        method
            .sig
            .abi
            .as_ref()
            .map(|abi| (abi.extern_token.span, "extern")),
        method.defaultness.map(|token| (token.span, "default")),
    ];
    if let Some((span, word)) = odd.into_iter().flatten().next() {
        let with_async = if method.sig.asyncness.is_some() {
            "async "
        } else {
            ""
        };
        return Err(syn::Error::new(
            span,
            format!(
                "`{name}` is `{word}`, which a compute function cannot be; write `{with_async}fn {name}`"
            ),
        ));
    }
    Ok(())
}

/// The type of the value; refuses one that borrows or has no name.
fn owned_value(ty: &Type, method: &Ident) -> syn::Result<Type> {
    if let Some(found) = types::first_borrow(ty) {
        let instead = match ty {
            Type::Reference(reference) => {
                format!("return `{}`", types::owned_text(&reference.elem))
            }
            _ => "return a type that owns what it holds".to_owned(),
        };
        return Err(syn::Error::new_spanned(
            found,
            format!("`{method}` returns a borrow, and its value is kept: {instead}"),
        ));
    }
    if let Some(found) = types::first_opaque(ty) {
        return Err(syn::Error::new_spanned(
            found,
            format!(
                "`{method}` returns an `impl` type, and its value is kept and handed out: name the type"
            ),
        ));
    }
    Ok(ty.clone())
}

/// `String` and `Vec<T>` are looked up by what they borrow as, so that a hit allocates nothing.
fn passing(ty: &Type) -> Passing {
    let Type::Path(path) = ty else {
        return Passing::Value;
    };
    let Some(last) = path.path.segments.last().filter(|_| path.qself.is_none()) else {
        return Passing::Value;
    };
    match &last.arguments {
        PathArguments::None if last.ident == "String" => Passing::Str,
        PathArguments::AngleBracketed(list) if last.ident == "Vec" && list.args.len() == 1 => {
            match &list.args[0] {
                GenericArgument::Type(item) => Passing::Slice(Box::new(item.clone())),
                _ => Passing::Value,
            }
        }
        _ => Passing::Value,
    }
}

fn is_context(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => is_context(&reference.elem),
        Type::Path(path) => path
            .path
            .segments
            .last()
            .is_some_and(|last| last.ident == "Cx" && last.arguments.is_none()),
        _ => false,
    }
}

fn plain_name(pattern: &Pat) -> Option<&Ident> {
    match pattern {
        Pat::Ident(name) if name.by_ref.is_none() && name.subpat.is_none() => Some(&name.ident),
        _ => None,
    }
}

fn typed_inputs(method: &ImplItemFn) -> impl Iterator<Item = &syn::PatType> {
    method.sig.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(input) => Some(input),
        FnArg::Receiver(_) => None,
    })
}
