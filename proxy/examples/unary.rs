#[path = "../tests/common/mod.rs"]
mod common;
use common::{Place, World, grpc::Client, service::Service};
use proto::record::Protocol;
use std::time::Instant;
fn cpu() -> f64 {
    let t = std::fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = t.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
async fn run(client: &Client, path: &str, n: usize, par: usize) {
    let mut tasks = Vec::new();
    let (c0, t0) = (cpu(), Instant::now());
    for _ in 0..par {
        let client = client.clone();
        let path = path.to_owned();
        tasks.push(tokio::spawn(async move {
            for _ in 0..n / par {
                let a = client
                    .unary(
                        &path,
                        &[
                            ("grpc-timeout", "5S"),
                            ("timeout", "5000000000"),
                            ("user-agent", "grpc-go/1"),
                        ],
                        &[7; 128],
                    )
                    .await;
                assert_eq!(a.status(), Some("0"));
            }
        }));
    }
    for t in tasks {
        t.await.unwrap();
    }
    let (c, t) = (cpu() - c0, t0.elapsed().as_secs_f64());
    println!(
        "{path} par {par}: {:.1} us cpu/call, {:.0} calls/s",
        c * 1e6 / n as f64,
        n as f64 / t
    );
}
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let world = World::new().await;
    let mut service = Service::start().await;
    let direct = Client::connect(service.address).await;
    world.offer("near", Place::Here, service.address, Protocol::Grpc);
    world.offer("far", Place::There, service.address, Protocol::Grpc);
    tokio::spawn(async move { while service.seen.recv().await.is_some() {} });
    let client = Client::connect(world.here.address).await;
    for par in [1, 32] {
        for _ in 0..2 {
            run(&direct, "/x.Say/Echo", 40_000, par).await;
            run(&client, "/near.Say/Echo", 40_000, par).await;
            run(&client, "/far.Say/Echo", 40_000, par).await;
        }
    }
}
