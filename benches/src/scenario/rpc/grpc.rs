//! The same calls by tonic, as its code generator would write them.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::client::Grpc as Client;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{Request as HttpRequest, Response as HttpResponse};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::{User, text};

#[derive(Clone, PartialEq, prost::Message)]
struct AddRequest {
    #[prost(int32, tag = "1")]
    a: i32,
    #[prost(int32, tag = "2")]
    b: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sum {
    #[prost(int32, tag = "1")]
    sum: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UserRequest {
    #[prost(uint64, tag = "1")]
    id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UserReply {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    email: String,
    #[prost(string, tag = "4")]
    about: String,
    #[prost(uint32, tag = "5")]
    age: u32,
}

const ADD: &str = "/bench.Bench/Add";
const USER: &str = "/bench.Bench/User";

#[derive(Clone)]
struct Bench;

struct Add;

impl UnaryService<AddRequest> for Add {
    type Response = Sum;
    type Future = Ready<Result<Response<Sum>, Status>>;

    fn call(&mut self, request: Request<AddRequest>) -> Self::Future {
        let AddRequest { a, b } = request.into_inner();
        ready(Ok(Response::new(Sum { sum: a.wrapping_add(b) })))
    }
}

struct GetUser;

impl UnaryService<UserRequest> for GetUser {
    type Response = UserReply;
    type Future = Ready<Result<Response<UserReply>, Status>>;

    fn call(&mut self, request: Request<UserRequest>) -> Self::Future {
        let User { id, name, email, about, age } = User::with(request.into_inner().id);
        ready(Ok(Response::new(UserReply { id, name, email, about, age })))
    }
}

impl Service<HttpRequest<Body>> for Bench {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<HttpResponse<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        Box::pin(async move {
            Ok(match request.uri().path() {
                ADD => Grpc::new(ProstCodec::<Sum, AddRequest>::default()).unary(Add, request).await,
                USER => Grpc::new(ProstCodec::<UserReply, UserRequest>::default()).unary(GetUser, request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

impl NamedService for Bench {
    const NAME: &'static str = "bench.Bench";
}

pub(super) async fn serve(listener: TcpListener) {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    if let Err(error) = Server::builder().add_service(Bench).serve_with_incoming(incoming).await {
        eprintln!("the server has ended: {error}");
    }
}

pub(super) async fn connect(port: u16) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).map_err(text)?.tcp_nodelay(true);
    endpoint.connect().await.map_err(text)
}

/// A client of its own for a task.
pub(super) fn client(channel: &Channel) -> Client<Channel> {
    Client::new(channel.clone())
}

pub(super) async fn call(client: &mut Client<Channel>, add: bool, caller: u32, count: u32) {
    client.ready().await.expect("a connection");
    if add {
        let request = Request::new(AddRequest { a: caller as i32, b: count as i32 });
        let codec = ProstCodec::<AddRequest, Sum>::default();
        let answer = client.unary(request, PathAndQuery::from_static(ADD), codec).await.expect("it is answered");
        assert_eq!(answer.into_inner().sum, (caller + count) as i32);
    } else {
        let request = Request::new(UserRequest { id: u64::from(count) });
        let codec = ProstCodec::<UserRequest, UserReply>::default();
        let answer = client.unary(request, PathAndQuery::from_static(USER), codec).await.expect("it is answered");
        assert_eq!(answer.into_inner().id, u64::from(count));
    }
}
