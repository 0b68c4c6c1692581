//! Tests of the demo's data: its files refer to each other consistently.

use std::collections::HashSet;

use super::*;

fn files() -> (Vec<DemoProduct>, People) {
    (
        serde_json::from_str(include_str!("products.json")).unwrap(),
        serde_json::from_str(include_str!("people.json")).unwrap(),
    )
}

#[test]
fn pictures_and_products_match() {
    let (products, _) = files();
    let used: HashSet<String> = products.iter().flat_map(|product| product.pictures.clone()).collect();
    let embedded: HashSet<String> = Pictures::iter().map(|name| name.to_string()).collect();
    assert_eq!(used, embedded);
    assert!(products.iter().all(|product| !product.pictures.is_empty()));
    let skus: HashSet<&str> = products.iter().map(|product| product.product.sku.as_str()).collect();
    assert_eq!(skus.len(), products.len(), "a SKU occurs twice");
}

#[test]
fn orders_and_comments_name_known_people_and_products() {
    let (products, people) = files();
    let skus: HashSet<&str> = products.iter().map(|product| product.product.sku.as_str()).collect();
    let emails: HashSet<&str> = people.customers.iter().map(|customer| customer.email.as_str()).collect();
    for order in &people.orders {
        assert!(emails.contains(order.customer.as_str()) && !order.lines.is_empty(), "{}", order.customer);
        assert!(order.lines.iter().all(|line| skus.contains(line.sku.as_str()) && line.quantity > 0));
    }
    let mut commented = HashSet::new();
    for comment in &people.comments {
        assert!(emails.contains(comment.customer.as_str()) && skus.contains(comment.sku.as_str()), "{}", comment.sku);
        assert!(commented.insert((comment.customer.as_str(), comment.sku.as_str())), "{} twice", comment.sku);
    }
}

#[test]
fn random_passwords_are_long_and_different() {
    let (one, other) = (random_password().unwrap(), random_password().unwrap());
    assert!(one != other && one.len() == 19, "{one}");
}
