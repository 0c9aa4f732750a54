//! `#[rpc_service]`: the trait stays, with a way to serve it; beside it stands a client.

mod client;
mod method;
mod options;
mod server;
mod signature;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Item, ItemTrait, TraitItem, parse_quote};

use self::method::{Kind, Method};
use self::options::Only;
pub(crate) use self::options::ServiceOptions;
use crate::compute::keep;

/// As long as a method's full name may be on the wire.
const LONGEST: usize = 1024;

/// One trait, read and checked.
struct Contract {
    /// With futures that can be sent between threads.
    item: ItemTrait,
    name: String,
    methods: Vec<Method>,
}

pub(crate) fn expand(options: ServiceOptions, item: Item) -> syn::Result<TokenStream> {
    let mut contract = Contract::read(&options, item)?;
    let client = (options.only != Some(Only::Server)).then(|| client::client(&contract));
    if options.only == Some(Only::Client) {
        contract.item.attrs.push(parse_quote!(#[allow(dead_code, reason = "implemented by another process")]));
    } else {
        let into_service = server::into_service(&contract);
        contract.item.items.push(TraitItem::Verbatim(into_service));
    }
    let item = &contract.item;
    Ok(quote! {
        #item
        #client
    })
}

impl Contract {
    fn read(options: &ServiceOptions, item: Item) -> syn::Result<Contract> {
        let Item::Trait(mut item) = item else {
            return Err(syn::Error::new_spanned(item, "`#[rpc_service]` goes on a trait: `#[rpc_service] pub trait Stock { .. }`"));
        };
        check_trait(&item)?;
        let name = options.name.as_ref().map_or_else(|| item.ident.to_string(), |name| name.value());
        let (mut methods, mut errors) = (Vec::<Method>::new(), None);
        for member in &mut item.items {
            let TraitItem::Fn(method) = member else {
                let message =
                    format!("`{}` has something that is no method, and only methods can be called; move it to another trait", item.ident);
                keep(&mut errors, syn::Error::new_spanned(member, message));
                continue;
            };
            match Method::read(method, options).and_then(|method| check_name(method, &name, &methods, &item.ident)) {
                Ok(method) => methods.push(method),
                Err(error) => keep(&mut errors, error),
            }
        }
        match errors {
            Some(error) => Err(error),
            None => Ok(Contract { item, name, methods }),
        }
    }

    /// The name on the wire.
    fn full_name(&self, method: &Method) -> String {
        format!("{}.{}", self.name, method.wire)
    }
}

fn check_trait(item: &ItemTrait) -> syn::Result<()> {
    let name = &item.ident;
    if let Some(parameter) = item.generics.params.first() {
        let message = format!("`{name}` is generic, and a service has one name for one set of types: name them");
        return Err(syn::Error::new_spanned(parameter, message));
    }
    if let Some(token) = &item.unsafety {
        return Err(syn::Error::new_spanned(token, format!("`{name}` is unsafe, and strangers call it; write `trait {name}`")));
    }
    Ok(())
}

/// Refuses a method that goes by the name of another, here or on the wire.
fn check_name(method: Method, service: &str, others: &[Method], item: &Ident) -> syn::Result<Method> {
    let (ident, full) = (&method.ident, format!("{service}.{}", method.wire));
    if full.len() > LONGEST {
        let message =
            format!("`{ident}` is called by a name of {} bytes, and messages can say {LONGEST}; give a shorter `name`", full.len());
        return Err(syn::Error::new(ident.span(), message));
    }
    if ["new", "named", "with", "functions", "remote", "into_service"].iter().any(|taken| ident == taken) {
        let message = format!(
            "`{ident}` is generated for `{item}`; call the method otherwise, and say what it is on the wire: `#[rpc(name = \"..\")]`"
        );
        return Err(syn::Error::new(ident.span(), message));
    }
    // Of those that are there under a condition, one may be there instead of the other.
    let same = |other: &&Method| other.wire == method.wire && other.cfgs.is_empty() && method.cfgs.is_empty();
    if let Some(other) = others.iter().find(same) {
        let message =
            format!("`{ident}` and `{}` are both `{full}` on the wire; give one another name: `#[rpc(name = \"..\")]`", other.ident);
        return Err(syn::Error::new(ident.span(), message));
    }
    Ok(method)
}

/// Where something is that is generated: mistakes are reported there.
fn at(place: &impl Spanned) -> Span {
    Span::call_site().located_at(place.span())
}

/// Whether a compute method's value is a `Result`, as a const argument.
fn fallible(method: &Method) -> TokenStream {
    let output = &method.output;
    quote_spanned! {at(output)=>
        {
            #[allow(unused_imports, reason = "used for a type that is not a Result")]
            use ::wellspring_rpc::__private::Infallible as _;
            ::wellspring_rpc::__private::Probe::<<#output as ::wellspring_rpc::__private::Computes>::Value>::FALLIBLE
        }
    }
}

/// Generated items are complete; a crate uses the part it needs, and its own types may be more private than they are.
fn quiet() -> TokenStream {
    quote! {
        #[allow(
            dead_code,
            deprecated,
            private_interfaces,
            private_bounds,
            unreachable_pub,
            clippy::type_complexity,
            clippy::too_many_arguments,
            reason = "generated whole by #[rpc_service], and used in part"
        )]
    }
}

impl Contract {
    fn client_name(&self) -> Ident {
        format_ident!("{}Client", self.item.ident)
    }

    fn functions_name(&self) -> Ident {
        format_ident!("{}ClientFunctions", self.item.ident)
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &Method> {
        self.methods.iter().filter(move |method| method.kind == kind)
    }
}
