//! The trait's own method that makes a service of an implementation.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};

use super::{Contract, Kind, Method, at, fallible, quiet};

pub(super) fn into_service(contract: &Contract) -> TokenStream {
    let (name, quiet) = (&contract.name, quiet());
    // Hygienic, so that a method can have an argument of the name.
    let service = Ident::new("service", Span::mixed_site());
    let added = contract.methods.iter().map(|method| {
        let (cfgs, add) = (&method.cfgs, add(method, &service));
        let (verified, limits) = (method.verified.then(|| quote!(.verified())), method.limits.iter());
        quote! {
            #(#cfgs)*
            let #service = #add #verified #(.limits(#limits))*;
        }
    });
    let doc = format!("The methods as the service `{name}`, for the builder of a [`Hub`](wellspring_rpc::Hub).");
    quote! {
        #[doc = #doc]
        #quiet
        fn into_service(self: ::std::sync::Arc<Self>) -> ::wellspring_rpc::Service
        where
            Self: ::core::marker::Sized + ::core::marker::Send + ::core::marker::Sync + 'static,
        {
            let #service = ::wellspring_rpc::Service::new(#name);
            #(#added)*
            #service
        }
    }
}

fn add(method: &Method, service: &Ident) -> TokenStream {
    let Method { ident, caller, arguments, output, wire, .. } = method;
    let sent = arguments.iter().map(|argument| (&argument.ident, &argument.ty));
    let (idents, types): (Vec<_>, Vec<_>) = caller.iter().map(|(ident, ty)| (ident, ty)).chain(sent).unzip();
    let passed = caller.iter().map(|(ident, _)| quote!(&#ident)).chain(arguments.iter().map(|argument| argument.ident.to_token_stream()));
    let this = Ident::new("this", Span::mixed_site());
    let awaited = method.is_async.then(|| quote!(.await));
    // Spanned at the method: this is where a type that cannot be sent is reported.
    let run = quote_spanned! {at(ident)=>
        move |(#(#idents,)*): (#(#types,)*)| {
            let #this = ::std::sync::Arc::clone(&#this);
            async move { Self::#ident(&#this, #(#passed),*) #awaited }
        }
    };
    let added = match method.kind {
        Kind::Regular => quote_spanned!(at(ident)=> ::wellspring_rpc::Service::method),
        Kind::NoWait => quote_spanned!(at(ident)=> ::wellspring_rpc::Service::no_wait),
        Kind::Compute => {
            let fallible = fallible(method);
            quote_spanned! {at(output)=>
                <::wellspring_rpc::__private::Pushes::<#fallible> as ::wellspring_rpc::__private::Push<
                    <#output as ::wellspring_rpc::__private::Computes>::Value,
                >>::add
            }
        }
    };
    quote! {
        {
            let #this = ::std::sync::Arc::clone(&self);
            #added(#service, #wire, #run)
        }
    }
}
