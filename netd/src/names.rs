//! The face of names: started with what the machine and the state directory say.

use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;

use proxy::{Names, Proxy};
use tokio_util::sync::CancellationToken;

use crate::data::Data;
use crate::error::Problem;
use crate::state::State;

/// The file of the state directory.
const FILE: &str = "names";
/// Where the system's name servers are written.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Answers questions on the data plane, until `accepting` ends.
///
/// # Errors
/// M6002 when the system refuses.
pub async fn serve(
    data: &Data,
    proxy: &Proxy,
    (tcp, udp): (TcpListener, UdpSocket),
    state: &Arc<State>,
    accepting: &CancellationToken,
) -> Result<(), Problem> {
    // Without it, or with one that is damaged, addresses are given anew.
    let kept = state.read(FILE).ok().flatten().unwrap_or_default();
    let keeper = Arc::clone(state);
    let keep = move |text: String| {
        if let Err(error) = keeper.write(FILE, text.as_bytes()) {
            tracing::warn!(%error, "addresses of names may be others after a restart");
        }
    };
    let names = Names {
        kept: String::from_utf8_lossy(&kept).into_owned(),
        keep: Arc::new(keep),
        resolv_conf: RESOLV_CONF.into(),
    };
    let (proxy, accepting) = (proxy.clone(), accepting.clone());
    let served = data.run(async move {
        let udp = tokio::net::UdpSocket::from_std(udp)?;
        let tcp = tokio::net::TcpListener::from_std(tcp)?;
        let serve = async move { proxy.dns(udp, tcp, names).await };
        tokio::spawn(accepting.run_until_cancelled_owned(serve));
        Ok::<_, std::io::Error>(())
    });
    let failed = |error| Problem::machine("the port for names cannot be served", &error);
    served.await?.map_err(failed)
}
