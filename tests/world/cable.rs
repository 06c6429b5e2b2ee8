//! A cable between the daemon and a service, which can be pulled and plugged in again at the same address.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Forwards connections while it is plugged in.
pub struct Cable {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    plugged: Option<JoinSet<()>>,
}

impl Cable {
    /// Plugged in on our side; nothing is at the other end yet.
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut cable = Self { address: listener.local_addr().unwrap(), target: Arc::default(), plugged: None };
        cable.serve(listener);
        cable
    }

    /// Where the daemon finds it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Says what is at the other end.
    pub fn lead_to(&self, url: &str) {
        *self.target.lock().unwrap() = Some(url.trim_start_matches("http://").parse().unwrap());
    }

    /// Breaks every connection; nobody listens at the address any more.
    pub async fn pull(&mut self) {
        if let Some(mut tasks) = self.plugged.take() {
            tasks.shutdown().await;
        }
    }

    /// Listens again at the same address.
    pub async fn plug_in(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    fn serve(&mut self, listener: TcpListener) {
        let target = Arc::clone(&self.target);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // The connections end with the task that holds them.
            let mut connections = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let target = target.lock().unwrap().unwrap();
                connections.spawn(async move {
                    let Ok(mut far) = TcpStream::connect(target).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        self.plugged = Some(tasks);
    }
}
