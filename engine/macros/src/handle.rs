//! The code that is generated, and of it the handle: one method to read each function by.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::parse_quote;
use syn::spanned::Spanned;

use crate::argument::{lookup, parameters};
use crate::compute::Block;
use crate::functions::{self, function_path, kind};
use crate::method::Method;
use crate::register;
use crate::types::{self, Dependence};

pub(crate) fn generate(block: &Block) -> TokenStream {
    let plain = (!block.plain.items.is_empty()).then_some(&block.plain);
    let handle = handle(block);
    let functions = functions::functions(block);
    let invalidate = functions::invalidate(block);
    let service = register::service(block);
    quote! {
        #plain
        #handle
        #functions
        #invalidate
        #service
    }
}

/// Generated items are complete; a crate uses the part it needs, and its own types may be more private than they are.
pub(crate) fn quiet() -> TokenStream {
    quote! {
        #[allow(
            dead_code,
            private_interfaces,
            private_bounds,
            unreachable_pub,
            reason = "generated whole by #[compute], and used in part"
        )]
    }
}

fn handle(block: &Block) -> TokenStream {
    let Block { own, names, vis, methods, .. } = block;
    let (handle, functions, invalidate) = (&names.handle, &names.functions, &names.invalidate);
    let (impl_generics, type_generics, where_clause) = own.generics().split_for_impl();
    let quiet = quiet();

    // The default keeps the service's visibility out of the handle's: `Deref::Target` may not be more private than the
    // type it is for, and a `pub` handle of a private `struct Shop` is the ordinary case in a binary.
    let mut declared = own.generics().clone();
    declared.params.push(parse_quote!(__Service = #own));
    let declared_params = &declared.params;

    let arguments = own.arguments();
    let bodies = methods.iter().map(|method| &method.body);
    let attributes = block.plain.attrs.iter().filter(|attribute| !attribute.path().is_ident("doc"));
    let reads = methods.iter().map(|method| read_method(method, block));
    let doc = format!(
        "What `{0}` is used through: its compute functions as methods, and the rest of `{0}` by deref.\n\n\
         A clone is two reference counts.",
        own.ident()
    );
    let shown = handle.to_string();
    quote! {
        #[doc = #doc]
        #quiet
        #vis struct #handle<#declared_params> #where_clause {
            __service: ::std::sync::Arc<__Service>,
            __functions: ::std::sync::Arc<#functions #type_generics>,
        }

        #quiet
        impl #impl_generics #handle #type_generics #where_clause {
            #(#reads)*

            /// The typed handles of the functions, for what has no method here: `peek`, `get_many`, `computed`.
            #[inline]
            #vis fn functions(&self) -> &#functions #type_generics {
                &self.__functions
            }

            /// Makes one cached value stale, and with it all that was computed from it: `invalidate().price(7)`.
            #[inline]
            #vis fn invalidate(&self) -> #invalidate<'_, #(#arguments),*> {
                #invalidate { functions: &self.__functions }
            }
        }

        #(#attributes)*
        impl #impl_generics #handle #type_generics #where_clause {
            #(#bodies)*
        }

        impl #impl_generics ::core::ops::Deref for #handle #type_generics #where_clause {
            type Target = #own;

            #[inline]
            fn deref(&self) -> &Self::Target {
                &self.__service
            }
        }

        impl #impl_generics ::core::clone::Clone for #handle #type_generics #where_clause {
            fn clone(&self) -> Self {
                Self { __service: ::std::sync::Arc::clone(&self.__service), __functions: ::std::sync::Arc::clone(&self.__functions) }
            }
        }

        impl #impl_generics ::core::fmt::Debug for #handle #type_generics #where_clause {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#shown).field("functions", &self.__functions).finish_non_exhaustive()
            }
        }
    }
}

/// One function as its readers call it.
fn read_method(method: &Method, block: &Block) -> TokenStream {
    let Method { ident, vis, value, cfgs, shown, .. } = method;
    // Hygienic, so that a function can have an argument `by` of its own.
    let by = Ident::new("by", Span::mixed_site());
    let (parameters, key, get) = (parameters(&method.arguments), lookup(method), function_path(method, kind(method), "get"));
    let Returns { fallible, read } = returns(method, block);
    // Spanned at the value: this is where an error type without `From<Fault>` is reported.
    let result = Ident::new("result", Span::mixed_site());
    let (output, wrapped) = if method.is_async {
        let future = quote_spanned!(value.span()=> ::wellspring::__private::ReadFuture);
        (quote_spanned!(value.span()=> #future<#value, #fallible>), quote_spanned!(value.span()=> #future::<#value, #fallible>(#result)))
    } else {
        (read, quote_spanned!(value.span()=> ::wellspring::__private::read_as::<#value, #fallible>(#result)))
    };
    let rest = quote! {
        fn #ident(&self, #by: impl ::wellspring::Ask, #(#parameters),*) -> #output {
            let #result = #get(&self.__functions.#ident, #by, #key);
            #wrapped
        }
    };
    quote! {
        #(#cfgs)*
        #(#shown)*
        #[inline]
        #vis #rest
    }
}

/// How the value of a function is read.
struct Returns {
    /// Whether the function returns a `Result`, as a const argument.
    fallible: TokenStream,
    /// The type a reader gets.
    read: TokenStream,
}

/// A `Result` is known by its name or by the option; behind an alias, the compiler finds it out, unless the type depends on
/// a parameter, which no const expression may.
fn returns(method: &Method, block: &Block) -> Returns {
    let value = &method.value;
    if types::is_written_result(value) {
        return Returns { fallible: quote_spanned!(value.span()=> true), read: quote!(#value) };
    }
    if method.options.result {
        return Returns {
            fallible: quote_spanned!(value.span()=> true),
            read: quote_spanned!(value.span()=> ::wellspring::__private::ReadOf<#value, true>),
        };
    }
    let named = matches!(value, syn::Type::Path(_) | syn::Type::Macro(_) | syn::Type::Group(_) | syn::Type::Paren(_));
    if !named || types::dependence(value, block.own.generics()) == Dependence::OnParameter || types::is_primitive(value) {
        return Returns {
            fallible: quote_spanned!(value.span()=> false),
            read: quote!(::core::result::Result<#value, ::wellspring::Fault>),
        };
    }
    let fallible = quote_spanned! {value.span()=>
        {
            #[allow(unused_imports, reason = "used for a type that is not a Result")]
            use ::wellspring::__private::Infallible as _;
            ::wellspring::__private::Probe::<#value>::FALLIBLE
        }
    };
    Returns { read: quote_spanned!(value.span()=> ::wellspring::__private::ReadOf<#value, #fallible>), fallible }
}
