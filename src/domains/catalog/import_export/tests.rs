//! Tests of the file formats on well-formed, malformed and foreign files.

#[path = "../../../../tests/api/mutation.rs"]
mod mutation;

use std::io::Read;

use super::*;
use crate::contract::catalog::NewProduct;

const HEADER: &str =
    "name,sku,description,price,currency,stock,compare_at_price,category,tags,attributes,group,options\n";

fn entries(format: Format, input: impl AsRef<[u8]>) -> Vec<ImportEntry> {
    read(format, input.as_ref(), Currency::EUR).unwrap().map(Result::unwrap).collect()
}

fn products(format: Format, input: impl AsRef<[u8]>) -> Vec<NewProduct> {
    entries(format, input)
        .into_iter()
        .filter_map(|entry| match entry {
            ImportEntry::Product { row, .. } => Some(new_product(*row)),
            ImportEntry::Refused { line, reason } => panic!("line {line}: {reason}"),
            ImportEntry::Note(_) => None,
        })
        .collect()
}

/// The product that a row makes where there is none.
fn new_product(row: ImportRow) -> NewProduct {
    let ImportRow { fields, defaults, .. } = row;
    NewProduct {
        name: fields.name.unwrap_or_default(),
        sku: fields.sku.unwrap(),
        description: fields.description.unwrap_or_default(),
        price: fields.price.unwrap_or_default(),
        currency: fields.currency.or(defaults.currency).unwrap_or(Currency::EUR),
        stock: fields.stock.or(defaults.stock).unwrap_or(0),
        track_stock: fields.track_stock.or(defaults.track_stock).unwrap_or(true),
        compare_at_price: fields.compare_at_price.flatten(),
        category: fields.category.flatten(),
        tags: fields.tags.unwrap_or_default(),
        attributes: fields.attributes.unwrap_or_default(),
        group: fields.group.flatten(),
        options: fields.options.unwrap_or_default(),
    }
}

/// The lines of what went in, and line and reason of what did not.
fn outcome(format: Format, input: impl AsRef<[u8]>) -> (Vec<u64>, Vec<(u64, String)>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for entry in entries(format, input) {
        match entry {
            ImportEntry::Product { line, .. } => good.push(line),
            ImportEntry::Refused { line, reason } => bad.push((line, reason)),
            ImportEntry::Note(_) => {}
        }
    }
    (good, bad)
}

fn fatal(format: Format, input: impl AsRef<[u8]>) -> String {
    match read(format, input.as_ref(), Currency::EUR) {
        Err(error) => error.to_string(),
        Ok(mut rows) => rows.find_map(Result::err).unwrap().to_string(),
    }
}

#[test]
fn csv_row_maps_columns_to_fields() {
    let csv = format!(
        "{HEADER}Teapot,KIT-1,\"Round, \"\"blue\"\"\nand quiet\",48.5,EUR,14,60,Kitchen,\"tea, gift\",\"Material=Stoneware; \
         Care=Hand wash\",pots,Colour=Blue\n"
    );
    let product = products(Format::Csv, csv).remove(0);
    assert_eq!(product.description, "Round, \"blue\"\nand quiet");
    assert_eq!((product.price, product.compare_at_price, product.stock), (4_850, Some(6_000), 14));
    assert_eq!(product.tags, ["tea", "gift"]);
    assert_eq!(product.attributes.get("Care").map(String::as_str), Some("Hand wash"));
    assert_eq!(product.options.get("Colour").map(String::as_str), Some("Blue"));
}

#[test]
fn csv_columns_are_unordered_and_mostly_optional() {
    let product = products(Format::Csv, "\u{feff}Price;SKU;Name\r\n1200;x;Mat\r\n\r\n").remove(0);
    assert_eq!((product.name.as_str(), product.sku.as_str(), product.price), ("Mat", "x", 120_000));
    assert_eq!((product.currency, product.stock, product.tags.len()), (Currency::EUR, 0, 0));
}

#[test]
fn bad_csv_row_is_rejected_with_line_and_column() {
    let cases: [(&[u8], &str); 13] = [
        (b"A,,9", "`sku` is empty"),
        (b",a,9", "`name` is empty"),
        (b"A,a,", "`price` is empty"),
        (b"A,a,nine", "`price`: \"nine\" is not a price in EUR, such as 9.99"),
        (b"A,a,\"1,234.50\"", "no thousands marks"),
        (b"A,a,9.999", "`price`"),
        (b"A,a,-1", "`price`"),
        (b"A,a", "has 2 columns where the header has 3"),
        (b"A,a,9,9", "has 4 columns where the header has 3"),
        (b"\xff\xfe,a,9", "column 1 is not UTF-8"),
        (b"5\" tube,a,9", "column 1 has a quote inside"),
        (b"\"A\" b,a,9", "column 1 has text behind its closing quote"),
        (b"\"A,a,9", "never closed"),
    ];
    for (row, reason) in cases {
        let input = [b"name,sku,price\nB,b,1\n", row, b"\nC,c,2\nD,d,3\n"].concat();
        let (good, bad) = outcome(Format::Csv, input);
        assert_eq!(good, [2, 4, 5], "{reason}");
        assert!(bad.len() == 1 && bad[0].0 == 3 && bad[0].1.contains(reason), "{bad:?} {reason}");
    }
}

#[test]
fn open_quote_does_not_consume_next_rows() {
    // The quote of line 2 ends at the one that begins line 4; the rows between are still imported.
    let (good, bad) = outcome(Format::Csv, "name,sku,price\n\"A,a,9\nB,b,1\n\"C\",c,2\nD,d,3\n");
    assert_eq!((good, bad[0].0, bad.len()), (vec![3, 4, 5], 2, 1));
}

#[test]
fn line_numbers_count_quoted_line_breaks() {
    let (good, bad) = outcome(Format::Csv, "name,sku,price\n\"A\nA\nA\",a,9\nB,b,x\nC,c,1\n");
    assert_eq!((good, bad[0].0), (vec![2, 6], 5));
}

#[test]
fn endless_row_is_rejected_in_bounded_memory() {
    let long = "x".repeat(3 * ROW_MAX);
    let (good, bad) = outcome(Format::Csv, format!("name,sku,price\n{long},a,9\nB,b,1\n"));
    assert_eq!((good, bad.len()), (vec![3], 1));
    assert!(bad[0].1.contains("longer than"), "{bad:?}");
    let (good, bad) =
        outcome(Format::Ndjson, format!("{{\"name\":\"{long}\"}}\n{{\"name\":\"B\",\"sku\":\"b\",\"price\":1}}\n"));
    assert_eq!((good, bad.len()), (vec![2], 1));
    let (good, bad) =
        outcome(Format::Json, format!("[{{\"name\":\"{long}\"}},\n{{\"name\":\"B\",\"sku\":\"b\",\"price\":1}}]"));
    assert_eq!((good, bad.len()), (vec![2], 1));
}

#[test]
fn unusable_file_fails_with_reason() {
    let cases: [(Format, &[u8], &str); 9] = [
        (Format::Csv, b"", "the file is empty"),
        (Format::Csv, b"name,price\nA,1\n", "no column `sku`"),
        (Format::Csv, b"name,sku,price,Name\n", "column `name` is there twice"),
        (Format::Csv, b"\xff\xfen\0a\0", "UTF-16"),
        (Format::Csv, b"\"name,sku,price\n", "a quote in the header has no end"),
        (Format::Csv, b"Handle,Title,Body (HTML)\n", "no column `Variant Price`"),
        (Format::Json, b"{\"name\":\"A\",\"tags\":[\"b\"]}", "no list of products"),
        (Format::Json, b"hello", "no list of products"),
        (Format::Json, b"[{\"name\":\"A\",\"sku\":\"a\",\"price\":1},\n", "line 2: the file ends before its list does"),
    ];
    for (format, input, reason) in cases {
        let error = fatal(format, input);
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn json_accepts_api_form_and_foreign_forms() {
    let own = r#"{"name":"A","sku":"a","price":999,"currency":"JPY","tags":["x"],"options":{"Size":"L"},"group":null}"#;
    let foreign =
        r#"{"title":"B","sku":7,"price":9.99,"stock":3,"brand":"Acme","thumbnail":"https://x/y.png","weight":2}"#;
    let ndjson = format!("{own}\n\n{foreign}\n");
    let array = format!("[{own},\n{foreign}]");
    let object = format!(
        "{{\"total\":2,\"words\":[\"a]\",{{\"b\":[]}}],\"note\":\"[{{\",\"products\":[{own},{foreign}],\"skip\":0}}"
    );
    for (format, input) in [(Format::Ndjson, ndjson), (Format::Json, array), (Format::Json, object)] {
        let entries = entries(format, &input);
        let notes: Vec<&str> = entries
            .iter()
            .filter_map(|e| if let ImportEntry::Note(note) = e { Some(note.as_str()) } else { None })
            .collect();
        assert_eq!(notes, ["fields that are not used: `weight`"]);
        let pictures = |entry: &ImportEntry| matches!(entry, ImportEntry::Product { images, .. } if images == &["https://x/y.png"]);
        assert_eq!(entries.iter().filter(|entry| pictures(entry)).count(), 1);
        let products = products(format, &input);
        assert_eq!((products[0].price, products[0].currency.as_str()), (999, "JPY"));
        assert_eq!((products[1].name.as_str(), products[1].sku.as_str(), products[1].price), ("B", "7", 999));
        assert_eq!(products[1].attributes.get("Brand").map(String::as_str), Some("Acme"));
    }
}

#[test]
fn bad_json_element_is_rejected_with_line() {
    let good = |sku: &str| format!("{{\"name\":\"A\",\"sku\":\"{sku}\",\"price\":1}}");
    let cases = [
        (r#"{"name":"A","price":1}"#, "`sku` is missing"),
        (r#"{"name":"A","sku":"a","price":"x"}"#, "`price`: \"x\" is not a price"),
        (r#"{"name":"A","sku":"a","price":9.99,"currency":"EUR"}"#, "minor unit"),
        (r#"{"name":"A","sku":"a","price":1,"currency":"euro"}"#, "`currency`"),
        (r#"{"name":"A","sku":"a","price":1,"stock":1.5}"#, "`stock`: 1.5 is not a whole number"),
        (r#"{"name":"A","sku":"a","price":1,"tags":{}}"#, "`tags`"),
        (r#"{"name":"A,"sku":"a","price":1}"#, "is not JSON"),
        (r#"{"name":"A","sku":"a","price":1,}"#, "is not JSON"),
        ("17", "is not a JSON object"),
        ("[1,[2]]", "is not a JSON object"),
        ("nul", "is not JSON"),
    ];
    for (bad_row, reason) in cases {
        let array = format!("[\n{},\n{bad_row},\n{}\n]", good("1"), good("2"));
        let ndjson = format!("\n{}\n{bad_row}\n{}\n", good("1"), good("2"));
        for (format, input) in [(Format::Json, array), (Format::Ndjson, ndjson)] {
            let (good, bad) = outcome(format, &input);
            assert_eq!(good, [2, 4], "{format:?} {bad_row} {bad:?}");
            assert!(bad.len() == 1 && bad[0].0 == 3 && bad[0].1.contains(reason), "{bad:?} {reason}");
        }
    }
    let bytes = [b"[{\"name\":\"\xff\"},\n".as_slice(), good("1").as_bytes(), b"]"].concat();
    let (good, bad) = outcome(Format::Json, bytes);
    assert!(good == [2] && bad[0].1.contains("UTF-8"), "{bad:?}");
}

#[test]
fn shopify_export_is_detected_by_header() {
    let csv = "Handle,Title,Body (HTML),Vendor,Type,Tags,Published,Option1 Name,Option1 Value,Option2 Name,Option2 \
               Value,Variant SKU,Variant Inventory Qty,Variant Price,Variant Compare At Price,Image Src\n\
               pot,Clay Pot,\"<p>Blown &amp; fired</p><ul><li>one</li></ul>\",Acme,Outdoor,\"Pot, Plants\",true,Size,Regular,,,,1,9.99,,https://x/1.jpg\n\
               pot,,,,,,,,Large,,,,-3,15.99,12,https://x/2.jpg\n\
               pot,,,,,,,,,,,,,,,https://x/3.jpg\n\
               sofa,Sofa,,,,,true,Title,Default Title,,,'SO FA,4,500,750,\n\
               ,,,,,,,,,,,,,,,\n\
               lamp,Lamp,,,,,true,Title,Default Title,,,,2,x,,\n\
               tent,Tent,,,,,false,Title,Default Title,,,,2,5,,\n";
    let (mut notes, mut all_images) = (Vec::<String>::new(), Vec::new());
    let (mut products, mut bad) = (Vec::new(), Vec::new());
    for entry in entries(Format::Csv, csv) {
        match entry {
            ImportEntry::Product { line, row, images } => {
                all_images.push(images);
                products.push((line, *row));
            }
            ImportEntry::Refused { line, reason } => bad.push((line, reason)),
            ImportEntry::Note(note) => notes.push(note),
        }
    }
    let for_sale: Vec<bool> = products.iter().map(|(_, row)| !row.withdrawn).collect();
    assert_eq!(for_sale, [true, true, true, false]);
    let keys: Vec<&str> = products.iter().filter_map(|(_, row)| row.source_key.as_deref()).collect();
    assert_eq!(keys, ["shopify:pot|Size=Regular", "shopify:pot|Size=Large", "shopify:sofa", "shopify:tent"]);
    let products: Vec<(u64, NewProduct)> = products.into_iter().map(|(line, row)| (line, new_product(row))).collect();
    let (line, regular) = &products[0];
    assert_eq!((*line, regular.sku.as_str(), regular.group.as_deref()), (2, "pot-regular", Some("pot")));
    assert_eq!(regular.description, "Blown & fired\n\n- one");
    assert_eq!((regular.category.as_deref(), regular.tags.len()), (Some("Outdoor"), 2));
    assert_eq!(regular.attributes.get("Vendor").map(String::as_str), Some("Acme"));
    let (line, large) = &products[1];
    assert_eq!((*line, large.name.as_str(), large.price, large.compare_at_price), (3, "Clay Pot", 1_599, None));
    assert_eq!((large.options.get("Size").map(String::as_str), large.stock), (Some("Large"), 0));
    let (_, sofa) = &products[2];
    assert_eq!((sofa.sku.as_str(), sofa.group.as_deref(), sofa.options.len()), ("SO-FA", None, 0));
    assert_eq!(bad.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [6, 7]);
    assert!(bad[1].1.contains("`Variant Price`: \"x\""), "{bad:?}");
    assert_eq!(notes, [""; 0]);
    assert_eq!(all_images[0], ["https://x/1.jpg", "https://x/2.jpg", "https://x/3.jpg"]);
    assert_eq!((&all_images[1][..], all_images[2].len()), (&["https://x/1.jpg".to_owned()][..], 0));
}

#[test]
fn shopify_headers_of_all_times_are_read() {
    let present = "Title,URL handle,Description,Vendor,Product category,Type,Tags,Status,SKU,Option1 name,Option1 value,Price,\
                   Compare-at price,Inventory tracker,Inventory quantity,Continue selling when out of stock\n\
                   Teapot,teapot,<p>Nice</p>,Acme,Home > Kitchen > Pots,,,Active,NH-1,Color,Red,19.90,,shopify,5,deny\n\
                   ,teapot,,,,,,,NH-1,,Blue,21.90,,,,continue\n";
    let rows = products(Format::Csv, present);
    assert_eq!((rows[0].stock, rows[0].track_stock, rows[1].track_stock), (5, true, false));
    assert_eq!((&*rows[0].description, rows[0].category.as_deref()), ("Nice", Some("Home > Kitchen > Pots")));
    // Variants may share the number of their style.
    assert_eq!((&*rows[0].sku, &*rows[1].sku), ("NH-1", "NH-1-blue"));
    let old = "Handle,Title,Body,Variant sku,Variant price,Variant inventory quantity\nlamp,Lamp,<p>Bright</p>,L-1,20.03,24\n";
    let lamp = products(Format::Csv, old).remove(0);
    assert_eq!((&*lamp.description, lamp.stock, lamp.price, &*lamp.sku), ("Bright", 24, 2_003, "L-1"));
    // Of a shop with several locations: no quantities, so nothing is said about stock.
    let no_stock = "Handle,Title,Variant SKU,Variant Price\nmug,Mug,ML-1,9.50\n";
    let entries = entries(Format::Csv, no_stock);
    let ImportEntry::Product { row, .. } = &entries[0] else { panic!("{entries:?}") };
    assert_eq!((row.fields.stock, row.fields.track_stock), (None, None));
    assert!(matches!(&entries[1], ImportEntry::Note(note) if note.contains("no quantities")), "{entries:?}");
}

/// Summary of a product for comparisons: SKU, name, price, former price, stock or `-`, category, group, options.
fn summary(product: &NewProduct) -> String {
    let stock = if product.track_stock { product.stock.to_string() } else { "-".to_owned() };
    let options: Vec<String> = product.options.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!(
        "{} | {} | {}{} {} | {stock} | {} | {} | {}",
        product.sku,
        product.name,
        product.price,
        product.compare_at_price.map(|price| format!(" ({price})")).unwrap_or_default(),
        product.currency,
        product.category.as_deref().unwrap_or_default(),
        product.group.as_deref().unwrap_or_default(),
        options.join(", ")
    )
}

#[test]
fn exports_of_other_shops_are_read() {
    let cases: [(&str, &[&str]); 7] = [
        (
            "ID,Type,SKU,Name,Published,Description,In stock?,Stock,Backorders allowed?,Sale price,Regular price,Categories,\
             Tags,Parent,Attribute 1 name,Attribute 1 value(s)\n\
             1,simple,cap,Cap,1,<b>Warm</b>,1,7,0,16,18,\"Clothing > Hats, Sale\",,,Material,Wool\n\
             2,variable,vneck,V-Neck,1,,1,,0,,,Clothing > Shirts,,,Size,\"S, M\"\n\
             3,variation,vneck-s,V-Neck - S,1,,1,,0,,15,,,vneck,Size,S\n\
             4,variation,,V-Neck - M,1,,0,,0,,15,,,id:2,Size,M\n\
             5,external,x,Elsewhere,1,,1,,0,,9,,,,,\n",
            &[
                "cap | Cap | 1600 (1800) EUR | 7 | Clothing > Hats |  | ",
                "vneck-s | V-Neck | 1500 EUR | - | Clothing > Shirts | vneck | Size=S",
                "v-neck-m | V-Neck | 1500 EUR | 0 | Clothing > Shirts | vneck | Size=M",
            ],
        ),
        (
            "sku,store_view_code,product_type,categories,name,description,price,special_price,product_online,\
             additional_attributes,qty,configurable_variations\n\
             S-1,,simple,\"Default Category/Gear,Default Category/Gear/Fitness\",Strap,<p>Nice <b>strap</b></p>,14,12,1,\
             \"activity=Yoga,color=Red\",100,\n\
             S,,configurable,,Straps,,,,1,,0,\"sku=S-1,color=Red|sku=S-2,color=Blue\"\n",
            &[
                "S-1 | Strap | 1200 (1400) EUR | 100 | Gear > Fitness |  | ",
                "S-1 |  | 0 EUR | 0 |  | S | color=Red",
                "S-2 |  | 0 EUR | 0 |  | S | color=Blue",
            ],
        ),
        (
            "ID;Active (0/1);Name *;Categories (x,y,z...);Price tax included;Reference #;Quantity;Description\n\
             1;1;Mug;\"Home,Kitchen\";9,90;MUG;3;<p>For tea</p>\n",
            &["MUG | Mug | 990 EUR | 3 | Home |  | "],
        ),
        (
            "Product ID [Non Editable],Variant ID [Non Editable],Product URL,Title,Description,SKU,Option Name 1,Option Value \
             1,Price,Sale Price,On Sale,Stock,Categories,Visible\n\
             p1,v1,shirt,Shirt,<p>Soft</p>,SQ-1,Size,S,20.00,15.00,Yes,Unlimited,/men/shirts,Yes\n\
             ,v2,,,,SQ-2,Size,M,20.00,15.00,No,4,,\n",
            &[
                "SQ-1 | Shirt | 1500 (2000) EUR | - | men > shirts | p1 | Size=S",
                "SQ-2 | Shirt | 2000 EUR | 4 | men > shirts | p1 | Size=M",
            ],
        ),
        (
            "Item Type,Product ID,Product Name,Product Code/SKU,Product Description,Price,Sale Price,Current Stock \
             Level,Track Inventory,Category,Product Visible?\n\
             Product,77,Towel,T,<p>Dry</p>,10,8,5,by product,Bath/Towels;Sale,Y\n\
             Product,78,Robe,R,,50,,0,by option,Bath,Y\n\
             \"  SKU\",79,\"[RB]Colour=Black,[S]Size=M\",R-BM,,,,3,,,\n\
             Rule,80,,,,,,,,,\n",
            &[
                "T | Towel | 800 (1000) EUR | 5 | Bath > Towels |  | ",
                "R-BM | Robe | 5000 EUR | 3 | Bath | 78 | Colour=Black, Size=M",
            ],
        ),
        (
            "TITLE,DESCRIPTION,PRICE,CURRENCY_CODE,QUANTITY,TAGS,MATERIALS,IMAGE1,VARIATION 1 TYPE,VARIATION 1 NAME,VARIATION 1 \
             VALUES,SKU\n\
             Ring,Handmade,25.00,USD,2,\"gift,silver_ring\",Silver,https://x/1.jpg,Size,Size,\"6,7\",R6\n",
            &["R6 | Ring | 2500 USD | 2 |  |  | "],
        ),
        (
            "id\ttitle\tdescription\tlink\timage_link\tavailability\tprice\tsale_price\tbrand\titem_group_id\tcolor\tproduct_type\n\
             G1\tLamp\tBright\thttps://x\thttps://x/1.jpg\tin_stock\t20.00 EUR\t15.00 EUR\tAcme\tlamps\tRed\tHome > Light\n\
             G2\tLamp\tBright\thttps://x\thttps://x/1.jpg\tout of stock\t20.00 EUR\t\tAcme\tlamps\tBlue\tHome > Light\n",
            &[
                "G1 | Lamp | 1500 (2000) EUR | - | Home > Light | lamps | Color=Red",
                "G2 | Lamp | 2000 EUR | 0 | Home > Light | lamps | Color=Blue",
            ],
        ),
    ];
    for (file, expected) in cases {
        let rows: Vec<String> = products(Format::Csv, file).iter().map(summary).collect();
        assert_eq!(rows, expected);
    }
}

#[test]
fn html_converts_to_text() {
    let cases = [
        ("<p>One</p>\n<p>Two<br>three</p>", "One\n\nTwo\nthree"),
        ("a < b &amp;&amp; c > d", "a < b && c > d"),
        ("x<script>alert('</p>')</script>y<style>p{}</style>z", "xyz"),
        ("<a href=\"x>y\" title='<'>link</a>", "link"),
        ("<!-- <p>no</p> -->yes<!doctype html>", "yes"),
        ("&lt;b&gt; &#233; &#x1F3FA; &nope; &", "<b> é \u{1F3FA} &nope; &"),
        ("<ul><li>one</li><li>two</li></ul>", "- one\n- two"),
        ("  many   spaces\t<b>bold</b> ", "many spaces bold"),
        ("&#0;&#7;ok", "ok"),
        ("<p unclosed", ""),
        ("<script>never closed", ""),
    ];
    for (html, text) in cases {
        assert_eq!(html::to_text(html), text, "{html}");
    }
}

/// Products with everything that could break a file.
fn awkward() -> Vec<NewProduct> {
    let plain = NewProduct {
        name: "Teapot".to_owned(),
        sku: "a".to_owned(),
        description: String::new(),
        price: 0,
        currency: Currency::EUR,
        stock: 0,
        track_stock: true,
        compare_at_price: None,
        category: None,
        tags: vec![],
        attributes: [].into(),
        group: None,
        options: [].into(),
    };
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    vec![
        NewProduct {
            description: "Quotes \"\" and, commas;\nlines\r\nand \u{1F3FA} Ünïcode".to_owned(),
            price: 4_805,
            stock: 14,
            track_stock: true,
            compare_at_price: Some(6_000),
            category: Some("Kitchen".to_owned()),
            tags: vec!["tea".to_owned(), "stone ware".to_owned()],
            attributes: pairs(&[("Material", "Stoneware"), ("Ratio", "a=b")]),
            group: Some("pots".to_owned()),
            options: pairs(&[("Colour", "Blue")]),
            ..plain.clone()
        },
        NewProduct {
            name: "=1+1".to_owned(),
            sku: "@b".to_owned(),
            description: "'=HYPERLINK(\"http://x\")".to_owned(),
            category: Some("-x".to_owned()),
            tags: vec!["a, b".to_owned(), "+c".to_owned()],
            attributes: pairs(&[("A;B", "c;d"), ("{", "}"), ("Empty", "")]),
            group: Some("'tis".to_owned()),
            options: pairs(&[("=A", "+1")]),
            ..plain.clone()
        },
        NewProduct { sku: "jpy".to_owned(), currency: "JPY".parse().unwrap(), price: 1_200, ..plain.clone() },
        NewProduct { sku: "kwd".to_owned(), currency: "KWD".parse().unwrap(), price: 7, ..plain },
    ]
}

#[test]
fn written_products_read_back_in_every_format() {
    for format in [Format::Csv, Format::Ndjson, Format::Json] {
        for rows in [awkward(), Vec::new()] {
            let mut writer = ProductWriter::new(format, Vec::new()).unwrap();
            for product in &rows {
                writer.write(product).unwrap();
            }
            let file = writer.finish().unwrap();
            assert_eq!(products(format, &file), rows, "{format:?}");
        }
    }
}

#[test]
fn exported_csv_has_no_formula_cells() {
    let mut writer = ProductWriter::new(Format::Csv, Vec::new()).unwrap();
    awkward().iter().for_each(|product| writer.write(product).unwrap());
    // Read by another CSV parser, as a spreadsheet would.
    let file = writer.finish().unwrap();
    let mut reader = ::csv::Reader::from_reader(file.as_slice());
    let mut cells = 0;
    for record in reader.records() {
        for cell in &record.unwrap() {
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{cell}");
            cells += 1;
        }
    }
    assert_eq!(cells, 4 * csv::COLUMNS.len());
}

#[test]
fn random_files_never_panic() {
    // Seeded, so that a failure can be repeated.
    let mut random = fastrand::Rng::with_seed(1);
    let signs = b"\"',;{}[]:\\\n\r\t<>&#aZ09.-= \xff\xc3\xa9";
    for _ in 0..3_000 {
        let noise: Vec<u8> = (0..120).map(|_| signs[random.usize(..signs.len())]).collect();
        let starts: [(Format, &[u8]); 5] = [
            (Format::Csv, b"name,sku,price\n"),
            (Format::Csv, b"Handle,Title,Variant Price\n"),
            (Format::Ndjson, b""),
            (Format::Json, b"["),
            (Format::Json, b"{\"a\":"),
        ];
        for (format, start) in starts {
            let input = start.chain(noise.as_slice());
            if let Ok(rows) = read(format, std::io::BufReader::with_capacity(7, input), Currency::EUR) {
                assert!(rows.count() < 1_000);
            }
        }
        let _ = html::to_text(&String::from_utf8_lossy(&noise));
    }
}

#[test]
fn foreign_sample_files_are_imported() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data");
    let read_file = |name: &str| std::fs::read(folder.join(name)).map_err(|_| eprintln!("SKIPPED: {name} is missing"));
    if let Ok(file) = read_file("dummyjson-products.json") {
        let products = products(Format::Json, file);
        assert_eq!(products.len(), 194);
        assert_eq!((products[0].name.as_str(), products[0].price), ("Essence Mascara Lash Princess", 999));
    }
    if let Ok(file) = read_file("shopify-home-and-garden.csv") {
        let products = products(Format::Csv, file);
        assert_eq!((products.len(), products[1].sku.as_str()), (21, "clay-plant-pot-large"));
        assert_eq!(products[0].description, "Classic blown clay pot for plants");
    }
}

#[test]
fn spreadsheet_dialects_are_read() {
    let files = [
        "name,sku,price,stock\rTeapot,00123,19.90,5\r",
        "name;sku;price;stock;Notes (size, colour)\nTeapot;00123;19.90;5;big, red\n",
        "name;sku;price;stock\r\nTeapot;00123;19,90;5,0\r\n",
        "sep=;\r\nname;sku;price;stock\r\nTeapot;00123;19,9;5.0\r\n",
        "sep=\t\nname\tsku\tprice\tstock\nTeapot\t00123\t19.900000\t5\n",
        "name,sku,price,stock\nTeapot,=\"00123\",19.899999999999999,5\n",
        "name,sku,price,stock\nTeapot,\"=\"\"00123\"\"\",\"19,90\",5.00\n",
    ];
    for file in files {
        let products = products(Format::Csv, file);
        let [product] = &products[..] else { panic!("{file:?}: {products:?}") };
        assert_eq!(
            (&*product.name, &*product.sku, product.price, product.stock),
            ("Teapot", "00123", 1_990, 5),
            "{file:?}"
        );
    }
    for (price, refused) in
        [("1,234", true), ("1.234,50", true), ("1.2345", true), ("0,99", false), ("16.583333", false)]
    {
        let (_, bad) = outcome(Format::Csv, format!("name;sku;price\nTeapot;T;{price}\n"));
        assert_eq!(!bad.is_empty(), refused, "{price}: {bad:?}");
    }
}

#[test]
fn s10_mutated_files_are_read_or_refused() {
    let shopify = "Handle,Title,Body (HTML),Vendor,Tags,Option1 Name,Option1 Value,Variant SKU,Variant Price,Variant \
                   Inventory Qty,Image Src\nteapot,Teapot,<p>Round</p>,Ada,\"a, b\",Size,S,T-S,4.80,5,\nteapot,,,,,,L,T-L,5.20,3,\n";
    let seeds = [
        (Format::Csv, format!("{HEADER}Teapot,T-1,\"Round,\nblue\",4.80,EUR,5,,Tea > Pots,a;b,Size: 1,,\n")),
        (Format::Csv, shopify.to_owned()),
        (
            Format::Json,
            r#"[{"name":"Teapot","sku":"T-1","price":480,"currency":"EUR","stock":5,"tags":["a"]}]"#.to_owned(),
        ),
        (Format::Ndjson, "{\"name\":\"Teapot\",\"price\":\"4.80\"}\n{\"name\":\"Cup\",\"price\":1}\n".to_owned()),
    ];
    let mut mutator = mutation::Mutator::from_environment();
    for _ in 0..10 * mutator.cases() {
        let (format, text) = mutator.choose(&seeds);
        let bytes = mutator.mutate(text.as_bytes());
        let lines = bytes.iter().filter(|&&byte| matches!(byte, b'\n' | b'\r')).count();
        if let Ok(entries) = read(*format, bytes.as_slice(), Currency::EUR) {
            let count = entries.take(10 * lines + 100).count();
            assert!(count < 10 * lines + 100, "{mutator}: endless");
        }
    }
}
