//! The code that is generated: the handle, its functions, its invalidations, and the service's registration.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{GenericParam, parse_quote};

use crate::compute::Block;
use crate::method::{Method, Passing};
use crate::options::CutOff;
use crate::types::{self, Dependence};

pub(crate) fn generate(block: &Block) -> TokenStream {
    let plain = (!block.plain.items.is_empty()).then_some(&block.plain);
    let handle = handle(block);
    let functions = functions(block);
    let invalidate = invalidate(block);
    let service = service(block);
    quote! {
        #plain
        #handle
        #functions
        #invalidate
        #service
    }
}

/// Generated items are complete; a crate uses the part it needs, and its own types may be more private than they are.
fn quiet() -> TokenStream {
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
    let Block {
        own,
        names,
        vis,
        methods,
        ..
    } = block;
    let (handle, functions, invalidate) = (&names.handle, &names.functions, &names.invalidate);
    let (impl_generics, type_generics, where_clause) = own.generics().split_for_impl();
    let quiet = quiet();

    // The default keeps the service's visibility out of the handle's: `Deref::Target` may not be more private than the
    // type it is for, and a `pub` handle of a private `struct Shop` is the ordinary case in a binary.
    let mut declared = own.generics().clone();
    declared.params.push(parse_quote!(__Service = #own));
    let declared_params = &declared.params;

    let arguments = arguments(block);
    let bodies = methods.iter().map(|method| &method.body);
    let attributes = block
        .plain
        .attrs
        .iter()
        .filter(|attribute| !attribute.path().is_ident("doc"));
    let reads = methods.iter().map(|method| read_method(method, block));
    let doc = format!(
        "What [`{0}`] is used through: its compute functions as methods, and the rest of `{0}` by deref.\n\n\
         A clone is two reference counts and the functions' handles; it does not keep the engine alive.",
        own.ident()
    );
    let shown = handle.to_string();
    quote! {
        #[doc = #doc]
        #quiet
        #vis struct #handle<#declared_params> #where_clause {
            __service: ::std::sync::Arc<__Service>,
            __functions: #functions #type_generics,
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
                Self { __service: ::std::sync::Arc::clone(&self.__service), __functions: self.__functions.clone() }
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
    let Method {
        ident,
        vis,
        value,
        cfgs,
        shown,
        ..
    } = method;
    // Hygienic, so that a function can have an argument `by` of its own.
    let by = Ident::new("by", Span::mixed_site());
    let (parameters, key, get) = (
        parameters(method),
        lookup(method),
        function_path(method, "get"),
    );
    let Returns { fallible, read } = returns(method, block);
    // Spanned at the value: this is where an error type without `From<Fault>` is reported.
    let result = Ident::new("result", Span::mixed_site());
    let read_as = quote_spanned!(value.span()=> ::wellspring::__private::read_as::<#value, #fallible>(#result));
    let rest = if method.is_async {
        let future = quote_spanned! {value.span()=>
            impl ::core::future::Future<Output = #read> + ::core::marker::Send
        };
        quote! {
            fn #ident(
                &self, #by: impl ::wellspring::Ask + ::core::marker::Send, #(#parameters),*
            ) -> #future {
                async move {
                    let #result = #get(&self.__functions.#ident, #by, #key).await;
                    #read_as
                }
            }
        }
    } else {
        quote! {
            fn #ident(&self, #by: impl ::wellspring::Ask, #(#parameters),*) -> #read {
                let #result = #get(&self.__functions.#ident, #by, #key);
                #read_as
            }
        }
    };
    quote! {
        #(#cfgs)*
        #(#shown)*
        #[inline]
        #vis #rest
    }
}

fn functions(block: &Block) -> TokenStream {
    let Block {
        own,
        names,
        vis,
        methods,
        ..
    } = block;
    let functions = &names.functions;
    let (impl_generics, type_generics, where_clause) = own.generics().split_for_impl();
    let declared = &own.generics().params;
    let quiet = quiet();
    let cfgs: Vec<_> = methods.iter().map(|method| &method.cfgs).collect();
    let idents: Vec<_> = methods.iter().map(|method| &method.ident).collect();
    let shown: Vec<_> = methods
        .iter()
        .map(|method| format!("The typed handle of `{}`.", method.ident))
        .collect();
    let types = methods.iter().map(function_type);
    let shown_names = methods.iter().map(|method| function_path(method, "name"));
    let doc = format!(
        "The compute functions of [`{}`] as typed handles.",
        own.ident()
    );
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

        impl #impl_generics ::core::clone::Clone for #functions #type_generics #where_clause {
            fn clone(&self) -> Self {
                Self {
                    #(#(#cfgs)* #idents: ::core::clone::Clone::clone(&self.#idents),)*
                    __service: ::core::marker::PhantomData,
                }
            }
        }

        impl #impl_generics ::core::fmt::Debug for #functions #type_generics #where_clause {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                let mut shown = f.debug_struct(#name);
                #(#(#cfgs)* shown.field(::core::stringify!(#idents), &#shown_names(&self.#idents));)*
                shown.finish()
            }
        }
    }
}

fn invalidate(block: &Block) -> TokenStream {
    let Block {
        own,
        names,
        vis,
        methods,
        ..
    } = block;
    let (functions, invalidate) = (&names.functions, &names.invalidate);
    let (_, type_generics, where_clause) = own.generics().split_for_impl();
    let quiet = quiet();
    let arguments = arguments(block);
    let mut declared = own.generics().clone();
    declared
        .params
        .insert(0, GenericParam::Lifetime(parse_quote!('__functions)));
    let (impl_generics, _, _) = declared.split_for_impl();
    let declared = &declared.params;
    let each = methods.iter().map(|method| {
        let Method {
            ident, vis, cfgs, ..
        } = method;
        let (parameters, key, invalidate) = (
            parameters(method),
            lookup(method),
            function_path(method, "invalidate"),
        );
        let doc =
            format!("Makes this value of `{ident}` stale, and returns once no read can see it.");
        quote! {
            #(#cfgs)*
            #[doc = #doc]
            #vis fn #ident(&self, #(#parameters),*) -> ::wellspring::CommitId {
                #invalidate(&self.functions.#ident, #key)
            }
        }
    });
    let doc = format!(
        "The invalidations of [`{}`], one method for each function.",
        own.ident()
    );
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

fn service(block: &Block) -> TokenStream {
    let Block {
        own,
        names,
        service_name,
        methods,
        ..
    } = block;
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
                let handle = #handle { __service: service, __functions: functions };
                late.fill(::core::clone::Clone::clone(&handle));
                ::core::result::Result::Ok(handle)
            }
        }
    }
}

/// Registers one function, inside `Service::register`.
fn register(method: &Method, block: &Block) -> TokenStream {
    let Method {
        arguments,
        value,
        body,
        options,
        ..
    } = method;
    let name = method.name();
    let body = &body.sig.ident;
    let key = key_type(method);
    let passed: Vec<TokenStream> = match arguments.len() {
        0 => Vec::new(),
        1 => vec![quote!(key)],
        several => (0..several)
            .map(syn::Index::from)
            .map(|index| quote!(key.#index))
            .collect(),
    };
    let concrete = types::dependence(value, block.own.generics()) == Dependence::Concrete;
    let cut_off = match options.cut_off {
        Some(CutOff::Never) => quote!(let define = define.cut_off_never();),
        Some(CutOff::Eq) => probe(
            value,
            "cut_off",
            &quote!(CompareWhole, CompareOk, CompareDemanded),
        ),
        None => probe(
            value,
            "cut_off",
            &quote!(CompareWhole, CompareOk, CompareNever),
        ),
    };
    let storage =
        concrete.then(|| probe(value, "storage", &quote!(StoreInline, StoreBehindPointer)));
    let function = Ident::new(
        if method.is_async {
            "async_function"
        } else {
            "function"
        },
        value.span(),
    );
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
            #cut_off
            #storage
            #define
        }
    }
}

/// Picks, by which traits the concrete type has, one of several methods of the same name.
fn probe(value: &syn::Type, method: &str, traits: &TokenStream) -> TokenStream {
    // Where a missing bound is reported.
    let method = Ident::new(method, value.span());
    quote! {
        let define = {
            #[allow(unused_imports, reason = "which of them is used depends on the type")]
            use ::wellspring::__private::{#traits};
            (&&&::wellspring::__private::Probe::<#value>::NEW).#method(define)
        };
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
        return Returns {
            fallible: quote_spanned!(value.span()=> true),
            read: quote!(#value),
        };
    }
    if method.options.result {
        return Returns {
            fallible: quote_spanned!(value.span()=> true),
            read: quote_spanned!(value.span()=> ::wellspring::__private::ReadOf<#value, true>),
        };
    }
    let named = matches!(
        value,
        syn::Type::Path(_) | syn::Type::Macro(_) | syn::Type::Group(_) | syn::Type::Paren(_)
    );
    if !named
        || types::dependence(value, block.own.generics()) == Dependence::OnParameter
        || types::is_primitive(value)
    {
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
    Returns {
        read: quote_spanned!(value.span()=> ::wellspring::__private::ReadOf<#value, #fallible>),
        fallible,
    }
}

fn parameters(method: &Method) -> Vec<TokenStream> {
    let parameter = |argument: &crate::method::Argument| {
        let (ident, ty) = (&argument.ident, &argument.ty);
        match &argument.passing {
            Passing::Value => quote!(#ident: #ty),
            Passing::Str => quote!(#ident: &str),
            Passing::Slice(item) => quote!(#ident: &[#item]),
        }
    };
    method.arguments.iter().map(parameter).collect()
}

/// The key as it is looked up: by reference, and a tuple by a tuple of references.
fn lookup(method: &Method) -> TokenStream {
    let parts: Vec<TokenStream> = method
        .arguments
        .iter()
        .map(|argument| {
            let ident = &argument.ident;
            match argument.passing {
                Passing::Value => quote!(&#ident),
                Passing::Str | Passing::Slice(_) => quote!(#ident),
            }
        })
        .collect();
    match parts.as_slice() {
        [] => quote!(&()),
        [one] => quote!(#one),
        several => quote!(&::wellspring::Parts((#(#several),*))),
    }
}

fn key_type(method: &Method) -> TokenStream {
    let types: Vec<_> = method
        .arguments
        .iter()
        .map(|argument| &argument.ty)
        .collect();
    match types.as_slice() {
        [one] => quote!(#one),
        several => quote!((#(#several),*)),
    }
}

/// The type, in the form that can also begin a path. All of it is spanned at the value, so that a value which is not
/// `Clone` or not `Send` is one error, at the place to look at.
fn function_type(method: &Method) -> TokenStream {
    let (key, value) = (key_type(method), &method.value);
    let kind = Ident::new(
        if method.is_async {
            "AsyncFunction"
        } else {
            "Function"
        },
        value.span(),
    );
    quote_spanned!(value.span()=> ::wellspring::#kind::<#key, #value>)
}

/// A method of the typed handle, as a path.
fn function_path(method: &Method, name: &str) -> TokenStream {
    let name = Ident::new(name, method.value.span());
    let function = function_type(method);
    quote_spanned!(method.value.span()=> #function::#name)
}

/// The block's parameters as arguments: `T`, `N`.
fn arguments(block: &Block) -> Vec<TokenStream> {
    let argument = |parameter: &GenericParam| match parameter {
        GenericParam::Type(ty) => {
            let ident = &ty.ident;
            quote!(#ident)
        }
        GenericParam::Const(constant) => {
            let ident = &constant.ident;
            quote!(#ident)
        }
        GenericParam::Lifetime(lifetime) => quote!(#lifetime),
    };
    block.own.generics().params.iter().map(argument).collect()
}
