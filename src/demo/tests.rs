//! The demo's files fit together.

use std::collections::HashSet;

use super::*;

fn files() -> (Vec<DemoProduct>, People) {
    (
        serde_json::from_str(include_str!("products.json")).unwrap(),
        serde_json::from_str(include_str!("people.json")).unwrap(),
    )
}

#[test]
fn every_product_has_pictures_and_every_picture_a_product() {
    let (goods, _) = files();
    let named: HashSet<String> = goods.iter().flat_map(|product| product.pictures.clone()).collect();
    let there: HashSet<String> = Pictures::iter().map(|name| name.to_string()).collect();
    assert_eq!(named, there);
    assert!(goods.iter().all(|product| !product.pictures.is_empty()));
    let skus: HashSet<&str> = goods.iter().map(|product| product.product.sku.as_str()).collect();
    assert_eq!(skus.len(), goods.len(), "a sku is there twice");
}

#[test]
fn orders_and_comments_speak_of_people_and_products_that_are_there() {
    let (goods, people) = files();
    let skus: HashSet<&str> = goods.iter().map(|product| product.product.sku.as_str()).collect();
    let emails: HashSet<&str> = people.customers.iter().map(|customer| customer.email.as_str()).collect();
    for order in &people.orders {
        assert!(emails.contains(order.customer.as_str()) && !order.lines.is_empty(), "{}", order.customer);
        assert!(order.lines.iter().all(|line| skus.contains(line.sku.as_str()) && line.quantity > 0));
    }
    let mut said = HashSet::new();
    for comment in &people.comments {
        assert!(emails.contains(comment.customer.as_str()) && skus.contains(comment.sku.as_str()), "{}", comment.sku);
        assert!(said.insert((comment.customer.as_str(), comment.sku.as_str())), "{} twice", comment.sku);
    }
}

#[test]
fn passwords_are_long_and_different() {
    let (one, other) = (password().unwrap(), password().unwrap());
    assert!(one != other && one.len() == 19, "{one}");
}
