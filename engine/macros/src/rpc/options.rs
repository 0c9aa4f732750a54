//! What can be written inside `#[rpc_service(..)]`, and inside `#[rpc(..)]` on a method.

use proc_macro2::Ident;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, LitBool, LitStr, Token};

use crate::options::{comma, once};

/// Which half is generated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Only {
    Client,
    Server,
}

/// `#[rpc_service(name = "IStock", token = false, only = client)]`.
#[derive(Default)]
pub(crate) struct ServiceOptions {
    pub(crate) name: Option<LitStr>,
    pub(crate) token: Option<bool>,
    pub(crate) only: Option<Only>,
}

/// `#[rpc(name = "GetAll", token = false, no_wait, verified, limits = LIMITS)]`.
#[derive(Default)]
pub(super) struct MethodOptions {
    pub(super) name: Option<LitStr>,
    pub(super) token: Option<bool>,
    pub(super) no_wait: bool,
    /// Where it is written: only some methods can have it.
    pub(super) verified: Option<Ident>,
    pub(super) limits: Option<syn::Expr>,
}

impl Parse for ServiceOptions {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let (mut options, place) = (ServiceOptions::default(), "the trait");
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            match key.to_string().as_str() {
                "name" => {
                    once(&key, options.name.is_none(), place)?;
                    options.name = Some(service_name(input)?);
                }
                "token" => {
                    once(&key, options.token.is_none(), place)?;
                    options.token = Some(truth(input)?);
                }
                "only" => {
                    once(&key, options.only.is_none(), place)?;
                    input.parse::<Token![=]>()?;
                    let half: Ident = input.parse()?;
                    options.only = Some(match half.to_string().as_str() {
                        "client" => Only::Client,
                        "server" => Only::Server,
                        _ => {
                            let message = format!("unknown half `{half}`; write `only = client` or `only = server`, or nothing for both");
                            return Err(syn::Error::new(half.span(), message));
                        }
                    });
                }
                _ => {
                    let message = format!(
                        "unknown option `{key}` on the trait; write `name = \"IStock\"`, `token = false` (its methods have no cancellation \
                         token), `only = client` or `only = server`"
                    );
                    return Err(syn::Error::new(key.span(), message));
                }
            }
            comma(input)?;
        }
        Ok(options)
    }
}

impl MethodOptions {
    /// Reads the options from the method's attributes; `method` is for the messages.
    pub(super) fn from_attributes(attributes: &[Attribute], method: &Ident) -> syn::Result<MethodOptions> {
        let mut options = MethodOptions::default();
        for attribute in attributes {
            attribute.parse_args_with(|input: ParseStream<'_>| options.read(input, method))?;
        }
        Ok(options)
    }

    fn read(&mut self, input: ParseStream<'_>, method: &Ident) -> syn::Result<()> {
        let place = format!("`{method}`");
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            match key.to_string().as_str() {
                "name" => {
                    once(&key, self.name.is_none(), &place)?;
                    self.name = Some(method_name(input, &place)?);
                }
                "token" => {
                    once(&key, self.token.is_none(), &place)?;
                    self.token = Some(truth(input)?);
                }
                "no_wait" => {
                    once(&key, !self.no_wait, &place)?;
                    self.no_wait = true;
                }
                "verified" => {
                    once(&key, self.verified.is_none(), &place)?;
                    self.verified = Some(key);
                }
                "limits" => {
                    once(&key, self.limits.is_none(), &place)?;
                    input.parse::<Token![=]>()?;
                    self.limits = Some(input.parse()?);
                }
                _ => {
                    let message = format!(
                        "unknown option `{key}` on `{method}`; write `name = \"GetAll\"`, `no_wait` (nobody waits for an answer), `verified` (callers \
                         hear of values that have changed only), `token = false` (the method has no cancellation token), or `limits = MethodLimits::new()..`"
                    );
                    return Err(syn::Error::new(key.span(), message));
                }
            }
            comma(input)?;
        }
        Ok(())
    }
}

fn truth(input: ParseStream<'_>) -> syn::Result<bool> {
    input.parse::<Token![=]>()?;
    Ok(input.parse::<LitBool>()?.value)
}

fn service_name(input: ParseStream<'_>) -> syn::Result<LitStr> {
    input.parse::<Token![=]>()?;
    let name: LitStr = input.parse()?;
    let refused = match name.value() {
        empty if empty.is_empty() => "is empty; leave it out to use the trait's own name",
        system if system.starts_with('$') => "begins with `$`, as the protocol's own services do; give another",
        _ => return Ok(name),
    };
    Err(syn::Error::new(name.span(), format!("`name` on the trait {refused}")))
}

fn method_name(input: ParseStream<'_>, place: &str) -> syn::Result<LitStr> {
    input.parse::<Token![=]>()?;
    let name: LitStr = input.parse()?;
    let refused = match name.value() {
        empty if empty.is_empty() => "is empty; leave it out to use the method's own name",
        full if full.contains(['.', ':']) => "has a `.` or `:`; write `GetAll` for `IStock.GetAll:1`: the rest is added",
        _ => return Ok(name),
    };
    Err(syn::Error::new(name.span(), format!("`name` on {place} {refused}")))
}
