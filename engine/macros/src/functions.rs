//! The typed handles of a service's functions, and what invalidates through them.

use proc_macro2::{Ident, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{GenericParam, parse_quote};

use crate::argument::{key_type, lookup, parameters};
use crate::compute::Block;
use crate::handle::quiet;
use crate::method::Method;

pub(crate) fn functions(block: &Block) -> TokenStream {
    let Block { own, names, vis, methods, .. } = block;
    let functions = &names.functions;
    let (impl_generics, type_generics, where_clause) = own.generics().split_for_impl();
    let declared = &own.generics().params;
    let quiet = quiet();
    let cfgs: Vec<_> = methods.iter().map(|method| &method.cfgs).collect();
    let idents: Vec<_> = methods.iter().map(|method| &method.ident).collect();
    let shown: Vec<_> = methods.iter().map(|method| format!("The typed handle of `{}`.", method.ident)).collect();
    let types = methods.iter().map(function_type);
    let doc = format!("The compute functions of `{}` as typed handles.", own.ident());
    let name = functions.to_string();
    quote! {
        #[doc = #doc]
        #quiet
        #[allow(clippy::type_complexity, reason = "keys and values are as the functions have them")]
        #vis struct #functions<#declared> #where_clause {
            #(
                #(#cfgs)*
                #[doc = #shown]
                pub #idents: #types,
            )*
            __service: ::core::marker::PhantomData<fn() -> #own>,
        }

        impl #impl_generics ::core::fmt::Debug for #functions #type_generics #where_clause {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut shown = f.debug_struct(#name);
                #(#(#cfgs)* shown.field(::core::stringify!(#idents), &self.#idents);)*
                shown.finish()
            }
        }
    }
}

pub(crate) fn invalidate(block: &Block) -> TokenStream {
    let Block { own, names, vis, methods, .. } = block;
    let (functions, invalidate) = (&names.functions, &names.invalidate);
    let (_, type_generics, where_clause) = own.generics().split_for_impl();
    let quiet = quiet();
    let arguments = own.arguments();
    let mut declared = own.generics().clone();
    declared.params.insert(0, GenericParam::Lifetime(parse_quote!('__functions)));
    let (impl_generics, _, _) = declared.split_for_impl();
    let declared = &declared.params;
    let each = methods.iter().map(|method| {
        let Method { ident, vis, cfgs, .. } = method;
        let (parameters, key, invalidate) = (parameters(&method.arguments), lookup(method), function_path(method, "Handle", "invalidate"));
        let doc = format!("Makes this value of `{ident}` stale, and returns once no read can see it.");
        quote! {
            #(#cfgs)*
            #[doc = #doc]
            #[track_caller]
            #vis fn #ident(&self, #(#parameters),*) -> ::wellspring::CommitId {
                #invalidate(&self.functions.#ident, #key)
            }
        }
    });
    let doc = format!("The invalidations of `{}`, one method for each function.", own.ident());
    let shown = invalidate.to_string();
    quote! {
        #[doc = #doc]
        #quiet
        #[must_use = "nothing is invalidated until one of the methods is called"]
        #vis struct #invalidate<#declared> #where_clause {
            functions: &'__functions #functions #type_generics,
        }

        #quiet
        impl #impl_generics #invalidate<'__functions, #(#arguments),*> #where_clause {
            #(#each)*
        }

        impl #impl_generics ::core::fmt::Debug for #invalidate<'__functions, #(#arguments),*> #where_clause {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#shown).finish_non_exhaustive()
            }
        }
    }
}

/// The type. All of it is spanned at the value, so that a value which is not
/// `Clone` or not `Send` is one error, at the place to look at.
fn function_type(method: &Method) -> TokenStream {
    let (key, value) = (key_type(method), &method.value);
    let kind = Ident::new(kind(method), value.span());
    quote_spanned!(value.span()=> ::wellspring::#kind<#key, #value>)
}

pub(crate) fn kind(method: &Method) -> &'static str {
    if method.is_async { "AsyncFunction" } else { "Function" }
}

/// A method of the typed handle, as a path spanned like its type. `owner` is the type that has the method.
pub(crate) fn function_path(method: &Method, owner: &str, name: &str) -> TokenStream {
    let (key, value) = (key_type(method), &method.value);
    let (owner, name) = (Ident::new(owner, value.span()), Ident::new(name, value.span()));
    quote_spanned!(value.span()=> ::wellspring::#owner::<#key, #value>::#name)
}
