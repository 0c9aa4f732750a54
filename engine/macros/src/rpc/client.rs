//! The client: calls as methods, and the compute methods of the other end as functions of an engine here.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};

use super::{Contract, Kind, Method, at, fallible, quiet};
use crate::argument::{parameters, references};

pub(super) fn client(contract: &Contract) -> TokenStream {
    let (vis, own, service) = (&contract.item.vis, &contract.item.ident, &contract.name);
    let (client, functions) = (contract.client_name(), contract.functions_name());
    let quiet = quiet();
    let methods = contract.methods.iter().map(|method| match method.kind {
        Kind::Regular => call(contract, method),
        Kind::NoWait => tell(contract, method),
        Kind::Compute => read(contract, method),
    });
    let computes: Vec<_> = contract.of(Kind::Compute).collect();
    let cfgs: Vec<_> = computes.iter().map(|method| &method.cfgs).collect();
    let idents: Vec<_> = computes.iter().map(|method| &method.ident).collect();
    let wires: Vec<_> = computes.iter().map(|method| &method.wire).collect();
    let full: Vec<_> = computes.iter().map(|method| contract.full_name(method)).collect();
    let shown = full.iter().map(|full| format!("The values of `{full}` that are cached here."));
    let types = computes.iter().map(|method| {
        let (arguments, value) = (method.arguments.iter().map(|argument| &argument.ty), value(method));
        quote_spanned!(at(&method.output)=> ::wellspring_rpc::__private::AsyncFunction<(#(#arguments,)*), ::wellspring_rpc::Remoted<#value>>)
    });
    let doc = format!(
        "A client of [`{own}`], which another process offers as `{service}`.\n\nCompute methods are functions of the engine here: read with `&engine` or, \
         inside a function, with its `cx`. A clone is two reference counts."
    );
    let functions_doc = format!("The compute methods of [`{own}`] as typed handles of functions.");
    let new_doc = format!("Registers the compute methods as functions of an engine: `{service}.Name:N`.");
    quote! {
        #[doc = #doc]
        #quiet
        #[derive(::core::clone::Clone, ::core::fmt::Debug)]
        #vis struct #client {
            remote: ::wellspring_rpc::Remote,
            functions: ::std::sync::Arc<#functions>,
        }

        #[doc = #functions_doc]
        #quiet
        #[derive(::core::clone::Clone, ::core::fmt::Debug)]
        #vis struct #functions {
            #(
                #(#cfgs)*
                #[doc = #shown]
                pub #idents: #types,
            )*
        }

        #quiet
        impl #client {
            #[doc = #new_doc]
            ///
            /// # Errors
            /// If the engine has a function of such a name, as it has with a second client: see [`named`](Self::named).
            #vis fn new(
                engine: &::wellspring_rpc::__private::Engine,
                remote: &::wellspring_rpc::Remote,
            ) -> ::core::result::Result<Self, ::wellspring_rpc::__private::RegisterError> {
                Self::named(engine, remote, #service)
            }

            /// As [`new`](Self::new), for one of several clients of the same kind: the functions are called `name.Name:N` in the engine.
            ///
            /// # Errors
            /// If the engine has a function of such a name.
            #vis fn named(
                engine: &::wellspring_rpc::__private::Engine,
                remote: &::wellspring_rpc::Remote,
                name: &str,
            ) -> ::core::result::Result<Self, ::wellspring_rpc::__private::RegisterError> {
                let _ = (engine, name);
                let functions = #functions {
                    #(
                        #(#cfgs)*
                        #idents: remote.function(
                            engine,
                            ::std::format!("{}.{}", name, #wires),
                            &::wellspring_rpc::__private::method(#full),
                        )?,
                    )*
                };
                ::core::result::Result::Ok(Self {
                    remote: ::core::clone::Clone::clone(remote),
                    functions: ::std::sync::Arc::new(functions),
                })
            }

            /// The same client, whose calls are made otherwise. Its compute methods are the same functions, which read as they did.
            #[must_use]
            #vis fn with(&self, options: ::wellspring_rpc::CallOptions) -> Self {
                Self { remote: self.remote.with(options), functions: ::std::sync::Arc::clone(&self.functions) }
            }

            /// The typed handles of the compute methods, for what has no method here: `computed`, `changes`, `invalidate`.
            #vis fn functions(&self) -> &#functions {
                &self.functions
            }

            /// The process that is called.
            #vis fn remote(&self) -> &::wellspring_rpc::Remote {
                &self.remote
            }

            #(#methods)*
        }
    }
}

/// The attributes of a method: its own documentation, or what there is to say.
fn attributes(method: &Method, doc: &str) -> TokenStream {
    let (cfgs, shown) = (&method.cfgs, &method.shown);
    let doc = (!shown.iter().any(|attribute| attribute.path().is_ident("doc"))).then(|| quote!(#[doc = #doc]));
    quote!(#(#cfgs)* #(#shown)* #doc)
}

/// What the method is called by, made once.
fn named(full: &str) -> TokenStream {
    quote! {
        static METHOD: ::std::sync::LazyLock<::wellspring_rpc::wire::MethodId> =
            ::std::sync::LazyLock::new(|| ::wellspring_rpc::__private::method(#full));
    }
}

/// The arguments as one tuple.
fn passed(method: &Method) -> TokenStream {
    let idents = method.arguments.iter().map(|argument| &argument.ident);
    quote_spanned!(at(&method.ident)=> (#(#idents,)*))
}

fn call(contract: &Contract, method: &Method) -> TokenStream {
    let Method { ident, output, arguments, .. } = method;
    let (vis, full, parameters) = (&contract.item.vis, contract.full_name(method), parameters(arguments));
    let (attributes, named) = (attributes(method, &format!("Calls `{full}`.")), named(&full));
    let passed = passed(method);
    let value = quote_spanned!(at(output)=> <#output as ::wellspring_rpc::__private::Answer>::Value);
    let call = quote_spanned!(at(output)=> ::wellspring_rpc::Remote::call::<#value>);
    let answer = quote_spanned!(at(output)=> ::core::result::Result<#value, ::wellspring_rpc::CallError>);
    quote! {
        #attributes
        #vis async fn #ident(&self, #(#parameters),*) -> #answer {
            #named
            #call(&self.remote, &METHOD, #passed).await
        }
    }
}

fn tell(contract: &Contract, method: &Method) -> TokenStream {
    let Method { ident, arguments, .. } = method;
    let (vis, full, parameters) = (&contract.item.vis, contract.full_name(method), parameters(arguments));
    let (attributes, named) = (attributes(method, &format!("Calls `{full}`, which is not answered.")), named(&full));
    let passed = passed(method);
    quote! {
        #attributes
        #vis fn #ident(&self, #(#parameters),*) -> ::core::result::Result<(), ::wellspring_rpc::CallError> {
            #named
            ::wellspring_rpc::Remote::tell(&self.remote, &METHOD, #passed)
        }
    }
}

fn read(contract: &Contract, method: &Method) -> TokenStream {
    let Method { ident, arguments, .. } = method;
    let (vis, full, parameters) = (&contract.item.vis, contract.full_name(method), parameters(arguments));
    let attributes = attributes(method, &format!("The value of `{full}`, which is cached here until it is stale there."));
    // Hygienic, so that a method can have an argument `by` of its own.
    let by = Ident::new("by", Span::mixed_site());
    let (parts, value) = (references(arguments), value(method));
    let key = if parts.is_empty() { quote!(&()) } else { quote!(&::wellspring_rpc::__private::Parts((#(#parts,)*))) };
    let future = quote_spanned!(at(&method.output)=> ::wellspring_rpc::__private::ReadFuture);
    let read = quote_spanned!(at(&method.output)=> #future<#value>);
    quote! {
        #attributes
        #vis fn #ident(&self, #by: impl ::wellspring_rpc::__private::Ask, #(#parameters),*) -> #read {
            #future(self.functions.#ident.get(#by, #key))
        }
    }
}

/// The type of a compute method's value; of one that can fail, without its failure.
fn value(method: &Method) -> TokenStream {
    let (output, fallible) = (&method.output, fallible(method));
    quote_spanned! {at(output)=>
        <::wellspring_rpc::__private::Pushes<#fallible> as ::wellspring_rpc::__private::Pushed<
            <#output as ::wellspring_rpc::__private::Computes>::Value,
        >>::Value
    }
}
