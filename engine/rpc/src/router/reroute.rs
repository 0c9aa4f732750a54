//! How a server says that a key is not its own.

use crate::failure::Failure;
use crate::wire::ErrorInfo;

/// What it was called before. Not told from the present one.
const FORMERLY: &str = "ActualLab.Rpc.Infrastructure.RpcRerouteException";

impl Failure {
    /// A call's key is not this server's: nothing was done, and another server is to be asked. A [`Router`](crate::Router) does that, and so does a
    /// .NET client.
    pub fn reroute() -> Failure {
        Failure::typed(ErrorInfo::REROUTE, "the key belongs to another server")
    }

    /// Whether it says that another server is to be asked.
    pub fn is_reroute(&self) -> bool {
        let name = self.type_name();
        ErrorInfo::REROUTE.split(',').next() == Some(name) || name == FORMERLY
    }
}
