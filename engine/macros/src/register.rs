//! `impl Service`: what `engine.service(..)` does with each function.

use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;
use syn::spanned::Spanned;

use crate::argument::key_type;
use crate::compute::Block;
use crate::method::Method;
use crate::options::{CutOff, Errors};
use crate::types::{self, Dependence};

pub(crate) fn service(block: &Block) -> TokenStream {
    let Block { own, names, service_name, methods, .. } = block;
    let (handle, functions) = (&names.handle, &names.functions);
    let (impl_generics, type_generics, where_clause) = own.generics().split_for_impl();
    let cfgs = methods.iter().map(|method| &method.cfgs);
    let idents = methods.iter().map(|method| &method.ident);
    let registered = methods.iter().map(|method| register(method, block));
    quote! {
        impl #impl_generics ::wellspring::Service for #own #where_clause {
            type Handle = #handle #type_generics;
            const NAME: &'static str = #service_name;

            fn register(
                service: ::std::sync::Arc<Self>,
                engine: &::wellspring::Engine,
                name: &str,
            ) -> ::core::result::Result<Self::Handle, ::wellspring::RegisterError> {
                let late = ::wellspring::__private::Late::<Self::Handle>::new();
                let functions = #functions {
                    #(#(#cfgs)* #idents: #registered,)*
                    __service: ::core::marker::PhantomData,
                };
                let handle = #handle { __service: service, __functions: ::std::sync::Arc::new(functions) };
                late.fill(::core::clone::Clone::clone(&handle));
                ::core::result::Result::Ok(handle)
            }
        }
    }
}

/// Registers one function, inside `Service::register`.
fn register(method: &Method, block: &Block) -> TokenStream {
    let Method { arguments, value, body, options, .. } = method;
    let name = method.name();
    let body = &body.sig.ident;
    let key = key_type(method);
    let passed: Vec<TokenStream> = match arguments.len() {
        0 => Vec::new(),
        1 => vec![quote!(key)],
        several => (0..several).map(syn::Index::from).map(|index| quote!(key.#index)).collect(),
    };
    let concrete = types::dependence(value, block.own.generics()) == Dependence::Concrete;
    let cut_off = match options.cut_off {
        Some(CutOff::Never) => quote!(let define = define.cut_off_never();),
        Some(CutOff::Hash) => probe(value, "cut_off", &quote!(HashWhole, HashOk, HashDemanded)),
        Some(CutOff::Eq) => probe(value, "cut_off", &quote!(CompareWhole, CompareOk, CompareDemanded)),
        None => probe(value, "cut_off", &quote!(CompareWhole, CompareOk, CompareNever)),
    };
    // Options in the order they must be called in: rules about errors change those that `errors` set.
    let errors = match &options.errors {
        Some(Errors::Keep) => None,
        Some(Errors::Kind(kind)) => Some(quote!(let define = define.retry_errors(#kind);)),
        None => concrete.then(|| probe(value, "errors", &quote!(RetryErrors, KeepValues))),
    };
    let calls = options.calls.iter().map(|(call, argument)| match argument {
        // A tuple is several arguments.
        Some(syn::Expr::Tuple(tuple)) => {
            let arguments = &tuple.elems;
            quote!(let define = define.#call(#arguments);)
        }
        argument => quote!(let define = define.#call(#argument);),
    });
    // The key's own type is asked, so that a key without `Debug` is simply not printed.
    let keys = probe(&syn::Type::Verbatim(key.clone()), "describe", &quote!(DescribeByDebug, DescribeNothing));
    let storage = concrete.then(|| probe(value, "storage", &quote!(StoreInline, StoreBehindPointer)));
    let function = Ident::new(if method.is_async { "async_function" } else { "function" }, value.span());
    let define = if method.is_async {
        quote! {
            define.#function(move |cx: ::wellspring::Cx, key: #key| {
                let late = late.clone();
                async move { late.get().#body(&cx, #(#passed),*).await }
            })?
        }
    } else {
        quote! {
            define.#function(move |cx: &::wellspring::Cx, key: &#key| {
                let key = ::core::clone::Clone::clone(key);
                late.get().#body(cx, #(#passed),*)
            })?
        }
    };
    quote! {
        {
            let late = late.clone();
            let define = engine.define::<#key, #value>(::std::format!("{}.{}", name, #name));
            #keys
            #cut_off
            #storage
            #errors
            #(#calls)*
            #define
        }
    }
}

/// Picks, by which traits the concrete type has, one of several methods of the same name.
fn probe(value: &syn::Type, method: &str, traits: &TokenStream) -> TokenStream {
    // A missing bound is reported where the value's type is written.
    let span = Span::call_site().located_at(value.span());
    let (method, define) = (Ident::new(method, span), Ident::new("define", span));
    quote! {
        let define = {
            #[allow(unused_imports, reason = "which of them is used depends on the type")]
            use ::wellspring::__private::{#traits};
            (&&&::wellspring::__private::Probe::<#value>::NEW).#method(#define)
        };
    }
}
