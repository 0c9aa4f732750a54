//! `#[command]`: finds the handlers of an impl block and registers them; the block itself stays as it is.

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, FnArg, GenericArgument, ImplItem, ImplItemFn, Item, ItemImpl, LitStr, PathArguments, ReturnType, Token, Type};

/// `#[command(name = "..")]`, on the impl block and on a method.
#[derive(Default)]
pub(crate) struct CommandOptions {
    name: Option<LitStr>,
}

impl Parse for CommandOptions {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut options = CommandOptions::default();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            if key != "name" || options.name.is_some() {
                return Err(syn::Error::new(key.span(), "`#[command]` has one option: `name = \"..\"`"));
            }
            input.parse::<Token![=]>()?;
            options.name = Some(input.parse()?);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

/// A method that does a command.
struct Handler {
    method: Ident,
    command: Type,
    /// The `Sqlite` of `op: &Op<Sqlite>`.
    store: Type,
    output: Type,
    name: LitStr,
    /// `cfg` attributes: what is generated for the method is there when the method is.
    cfgs: Vec<Attribute>,
}

pub(crate) fn expand(options: CommandOptions, item: Item) -> syn::Result<TokenStream> {
    let Item::Impl(mut block) = item else {
        return Err(syn::Error::new_spanned(item, "`#[command]` goes on an `impl Shop { .. }` block whose methods are handlers"));
    };
    if let Some((_, path, _)) = &block.trait_ {
        return Err(syn::Error::new_spanned(path, "`#[command]` goes on an inherent block: `#[command] impl Shop { .. }`"));
    }
    let service = type_name(&block.self_ty)?;
    let prefix = options.name.as_ref().map_or_else(|| service.to_string(), LitStr::value);
    let mut handlers = Vec::new();
    for item in &mut block.items {
        if let ImplItem::Fn(method) = item
            && let Some(store) = operation(method)
        {
            handlers.push(Handler::read(method, store, &prefix)?);
        }
    }
    let Some(first) = handlers.first() else {
        let message = format!(
            "no method of `{service}` takes an operation; write `async fn set_price(&self, command: SetPrice, op: &Op<Sqlite>)` for a \
             handler, or remove `#[command]`"
        );
        return Err(syn::Error::new_spanned(&block.self_ty, message));
    };
    let store = first.store.clone();
    if let Some(other) = handlers.iter().find(|handler| crate::types::text(&handler.store) != crate::types::text(&store)) {
        let message = "all handlers of a block work on one store; put those of another into a block of their own";
        return Err(syn::Error::new_spanned(&other.store, message));
    }
    Ok(generate(&block, &handlers, &store))
}

/// The store of the last argument, if that is `&Op<..>`.
fn operation(method: &ImplItemFn) -> Option<Type> {
    let FnArg::Typed(last) = method.sig.inputs.last()? else { return None };
    let Type::Reference(reference) = &*last.ty else { return None };
    let Type::Path(path) = &*reference.elem else { return None };
    let segment = path.path.segments.last().filter(|segment| segment.ident == "Op")?;
    let PathArguments::AngleBracketed(arguments) = &segment.arguments else { return None };
    arguments.args.iter().find_map(|argument| if let GenericArgument::Type(store) = argument { Some(store.clone()) } else { None })
}

impl Handler {
    fn read(method: &mut ImplItemFn, store: Type, prefix: &str) -> syn::Result<Handler> {
        let name = &method.sig.ident;
        let meant = format!("write `async fn {name}(&self, command: SetPrice, op: &Op<Sqlite>) -> Result<(), ShopError>`");
        if method.sig.asyncness.is_none() {
            return Err(syn::Error::new(name.span(), format!("`{name}` takes an operation and is not async; {meant}")));
        }
        let inputs: Vec<_> = method.sig.inputs.iter().collect();
        let [FnArg::Receiver(receiver), FnArg::Typed(command), FnArg::Typed(_)] = inputs[..] else {
            return Err(syn::Error::new(name.span(), format!("`{name}` is not a handler of one command; {meant}")));
        };
        if receiver.reference.is_none() || receiver.mutability.is_some() {
            return Err(syn::Error::new_spanned(receiver, format!("a handler is called by many at once; {meant}")));
        }
        if !method.sig.generics.params.is_empty() {
            return Err(syn::Error::new_spanned(&method.sig.generics, format!("`{name}` is generic, and a command has one type; {meant}")));
        }
        let ReturnType::Type(_, output) = &method.sig.output else {
            return Err(syn::Error::new(name.span(), format!("`{name}` returns no `Result`; {meant}")));
        };
        let (command, output) = ((*command.ty).clone(), (**output).clone());
        let ident = type_name(&command)?;
        let (mut options, mut kept) = (CommandOptions::default(), Vec::new());
        for attribute in std::mem::take(&mut method.attrs) {
            match attribute.path().is_ident("command") {
                true => options = attribute.parse_args()?,
                false => kept.push(attribute),
            }
        }
        let cfgs = kept.iter().filter(|attribute| attribute.path().is_ident("cfg")).cloned().collect();
        method.attrs = kept;
        let name = options.name.unwrap_or_else(|| LitStr::new(&format!("{prefix}.{ident}"), ident.span()));
        Ok(Handler { method: method.sig.ident.clone(), command, store, output, name, cfgs })
    }
}

/// The last name of a type's path.
fn type_name(ty: &Type) -> syn::Result<Ident> {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.clone()),
        _ => None,
    }
    .ok_or_else(|| syn::Error::new_spanned(ty, "a type with a name is meant here"))
}

fn generate(block: &ItemImpl, handlers: &[Handler], store: &Type) -> TokenStream {
    let (own, (generics, _, clause)) = (&block.self_ty, block.generics.split_for_impl());
    let commands = handlers.iter().map(|Handler { command, output, name, cfgs, .. }| {
        quote! {
            #(#cfgs)*
            impl ::wellspring_commands::Command for #command {
                const NAME: &'static str = #name;
                type Output = <#output as ::wellspring_commands::__private::Outcome>::Output;
                type Error = <#output as ::wellspring_commands::__private::Outcome>::Error;
            }
        }
    });
    let added = handlers.iter().map(|Handler { method, command, cfgs, .. }| {
        quote! {
            #(#cfgs)*
            {
                let this = ::std::sync::Arc::clone(&self);
                handlers.add(move |command: #command, op: ::wellspring_commands::Op<#store>| {
                    let this = ::std::sync::Arc::clone(&this);
                    async move { this.#method(command, &op).await }
                })?;
            }
        }
    });
    quote! {
        #block

        #(#commands)*

        impl #generics ::wellspring_commands::CommandService<#store> for #own #clause {
            fn register(
                self: ::std::sync::Arc<Self>,
                handlers: &mut ::wellspring_commands::Handlers<#store>,
            ) -> ::std::result::Result<(), ::wellspring_commands::HandlerError> {
                #(#added)*
                ::std::result::Result::Ok(())
            }
        }
    }
}
