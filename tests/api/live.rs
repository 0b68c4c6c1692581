//! The WebSocket endpoint of the gateway: authentication, and shutdown with open sockets.

use awc::ws::Frame;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{TestShop, TestUser, WAIT_TIMEOUT};

/// Opens a socket and returns its first frame, or the status that rejected it.
async fn open(shop: &TestShop, headers: &[(&'static str, String)]) -> Result<Value, u16> {
    let mut request = awc::Client::default().ws(format!("http://{}/api/v1/ws", shop.address));
    for (name, value) in headers {
        request = request.header(*name, value.as_str());
    }
    let (_, mut socket) = request.connect().await.map_err(|error| match error {
        awc::error::WsClientError::InvalidResponseStatus(status) => status.as_u16(),
        other => panic!("{other}"),
    })?;
    let frame = tokio::time::timeout(WAIT_TIMEOUT, socket.next()).await.unwrap();
    let Some(Ok(Frame::Text(text))) = frame else { panic!("{frame:?}") };
    Ok(serde_json::from_slice(&text).unwrap())
}

#[actix_web::test]
async fn socket_accepts_anonymous_cookie_and_token() {
    let shop = TestShop::open().await;
    let TestUser { id, token, .. } = shop.customer("ada@example.com").await;
    let anonymous = open(&shop, &[]).await.unwrap();
    assert_eq!((&anonymous["type"], &anonymous["user_id"]), (&json!("ready"), &Value::Null));
    let bearer = open(&shop, &[("authorization", format!("Bearer {token}"))]).await.unwrap();
    assert_eq!(bearer["user_id"], id.as_str());
    let ours = format!("http://{}", shop.address);
    let by_cookie = |origin: &str| [("cookie", format!("mercat_session={token}")), ("origin", origin.to_owned())];
    assert_eq!(open(&shop, &by_cookie(&ours)).await.unwrap()["user_id"], id.as_str());
    assert_eq!(open(&shop, &by_cookie("https://evil.example")).await, Err(403));
    assert_eq!(open(&shop, &[("authorization", "Bearer nonsense".to_owned())]).await, Err(401));
    shop.get("/ws").await.expect_problem(400, "not_a_web_socket");
    shop.call("POST", "/ws").send().await.expect_problem(405, "method_not_allowed");
}

#[actix_web::test]
async fn shutdown_closes_open_sockets() {
    let mut shop = TestShop::open().await;
    let request = awc::Client::default().ws(format!("http://{}/api/v1/ws", shop.address));
    let (_, mut socket) = request.connect().await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Frame::Text(_)))));
    let handle = shop.handle.clone();
    let stopping = actix_web::rt::spawn(async move { handle.stop(true).await });
    let mut closed = None;
    while let Some(Ok(frame)) = socket.next().await {
        if let Frame::Close(reason) = frame {
            closed = reason.map(|reason| u16::from(reason.code));
            break;
        }
    }
    assert_eq!(closed, Some(1001));
    drop(socket);
    stopping.await.unwrap();
    shop.server_task.take().unwrap().await.unwrap().unwrap();
}
