//! A shop of five baskets that holds every trap, small enough to add up in one's head.

use std::path::Path;

use tempfile::TempDir;
use wellspring::Engine;
use wellspring_shop::Shop;
use wellspring_shop::data::{Data, PRODUCTS, TRANSACTIONS};
use wellspring_shop::database::Database;

/// Product 1 costs 1.75 in basket 100 and 2.00 in the later 101; 2 is sold with quantity 0 only, once with money taken;
/// 99 is not in the product file; the coupon on 3 exceeds its price; 4 is fuel, a quarter of a cent each; 5 is never sold.
const LINES: &str = "\
household_id,store_id,basket_id,product_id,quantity,sales_cents,retail_disc_cents,coupon_disc_cents,coupon_match_disc_cents,week,unix_time
1,10,100,1,2,300,50,0,0,1,1
1,10,100,2,0,80,0,30,0,1,1
1,10,101,1,1,200,0,0,0,1,2
2,11,102,99,3,90,0,0,0,1,3
2,11,102,3,1,100,0,250,0,1,3
2,10,103,4,10000,2500,0,0,0,2,4
2,11,104,2,0,0,0,0,0,1,5
";

const CATALOGUE: &str = "\
product_id,manufacturer_id,department,brand,product_category,product_type,package_size
1,1,GROCERY,National,MILK,MILK,1 L
2,1,GROCERY,National,CHEESE,CHEESE,
3,1,DELI,National,,,
4,1,FUEL,National,GAS,GAS,
5,1,GROCERY,National,MILK,CREAM,
";

/// Writes the data files into a folder of their own.
pub(crate) fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    write(&folder.path().join(TRANSACTIONS), LINES);
    write(&folder.path().join(PRODUCTS), CATALOGUE);
    folder
}

/// The shop over them, in a temporary database.
#[allow(dead_code, reason = "not every test file that shares this module opens the shop itself")]
pub(crate) fn shop() -> Shop {
    shop_on(Engine::new())
}

/// [`shop`] on an engine of the test's own.
#[allow(dead_code, reason = "not every test file that shares this module opens the shop itself")]
pub(crate) fn shop_on(engine: Engine) -> Shop {
    let folder = folder();
    let data = Data::Folder(folder.path().to_owned());
    Shop::on(engine, Database::open(None, Some(&data)).expect("a database")).expect("a shop")
}

/// A file that holds them.
#[allow(dead_code, reason = "not every test file that shares this module starts servers")]
pub(crate) struct Kept {
    folder: TempDir,
}

#[allow(dead_code, reason = "not every test file that shares this module starts servers")]
impl Kept {
    pub(crate) fn new() -> Self {
        let (folder, data) = (tempfile::tempdir().expect("a folder"), folder());
        let kept = Self { folder };
        let data = Data::Folder(data.path().to_owned());
        Database::open(Some(Path::new(&kept.db())), Some(&data)).expect("a database");
        kept
    }

    pub(crate) fn db(&self) -> String {
        self.folder.path().join("shop.db").to_str().expect("a path that is text").to_owned()
    }
}

fn write(path: &Path, text: &str) {
    let packed = zstd::encode_all(text.as_bytes(), 1).expect("compression");
    std::fs::write(path, packed).expect("a written file");
}
