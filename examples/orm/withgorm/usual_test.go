package withgorm_test

import (
	"fmt"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/db/sqldb"
	"github.com/loadlinehq/loadline/examples/orm/ormtest"
	"github.com/loadlinehq/loadline/examples/orm/withgorm"
)

type Doc struct {
	ID        int64
	Name      string `gorm:"size:100;uniqueIndex"`
	Price     string `gorm:"type:numeric(10,2);default:0"`
	Views     int64
	CreatedAt time.Time
	DeletedAt gorm.DeletedAt
	Notes     []Note
}
type Note struct {
	ID    int64
	DocID int64
	Text  string
}

type Hooked struct {
	ID    int64
	Views int64
}

func (h *Hooked) AfterFind(tx *gorm.DB) error {
	return tx.Model(&Hooked{}).Where("id = ?", h.ID).UpdateColumn("views", gorm.Expr("views + 1")).Error
}

func setup(t *testing.T) *gorm.DB {
	router := ormtest.Router(t)
	g, err := withgorm.Open(router)
	if err != nil {
		t.Fatal(err)
	}
	g.Logger = logger.Discard
	if err := g.AutoMigrate(&Doc{}, &Note{}, &Hooked{}); err != nil {
		t.Fatal(err)
	}
	return g.WithContext(ormtest.Client(t))
}

func TestFindInBatches(t *testing.T) {
	t.Parallel()
	g := setup(t)
	for i := range 5 {
		if err := g.Create(&Doc{Name: fmt.Sprint("d", i)}).Error; err != nil {
			t.Fatal(err)
		}
	}
	var docs []Doc
	err := g.FindInBatches(&docs, 2, func(tx *gorm.DB, _ int) error {
		for i := range docs {
			docs[i].Views = 7
		}
		return tx.Save(&docs).Error
	}).Error
	if err != nil {
		t.Errorf("FindInBatches + tx.Save (GORM's documented example): %v", err)
	}
}

func TestAfterFind(t *testing.T) {
	t.Parallel()
	g := setup(t)
	h := Hooked{}
	if err := g.Create(&h).Error; err != nil {
		t.Fatal(err)
	}
	if err := g.First(&Hooked{}, h.ID).Error; err != nil {
		t.Errorf("AfterFind that writes: %v", err)
	}
}

func TestChain(t *testing.T) {
	t.Parallel()
	g := setup(t)
	d := Doc{Name: "x"}
	g.Create(&d)
	var found Doc
	// the result of a read begins a transaction
	if err := g.First(&found, d.ID).Transaction(func(tx *gorm.DB) error { return tx.Exec("UPDATE docs SET views = 1").Error }); err != nil {
		t.Errorf("First().Transaction(): %v", err)
	}
}

func TestUsual(t *testing.T) {
	t.Parallel()
	g := setup(t)
	if err := g.AutoMigrate(&Doc{}, &Note{}); err != nil {
		t.Errorf("second AutoMigrate: %v", err)
	}
	types, err := g.Migrator().ColumnTypes(&Doc{})
	if err != nil {
		t.Error(err)
	}
	for _, c := range types {
		l, lok := c.Length()
		p, s, ok := c.DecimalSize()
		if c.Name() == "price" && (c.DatabaseTypeName() != "numeric" || !ok || p != 10 || s != 2) || c.Name() == "name" && (!lok || l != 100) {
			t.Errorf("column %s: %s %d %t %d %d %t", c.Name(), c.DatabaseTypeName(), l, lok, p, s, ok)
		}
	}
	var d Doc
	if err := g.Where(Doc{Name: "foc"}).Attrs(Doc{Views: 2}).FirstOrCreate(&d).Error; err != nil || d.ID == 0 {
		t.Errorf("FirstOrCreate: %v", err)
	}
	if err := g.Where(Doc{Name: "foc"}).Assign(Doc{Views: 5}).FirstOrCreate(&d).Error; err != nil || d.Views != 5 {
		t.Errorf("FirstOrCreate assign: %v %+v", err, d)
	}
	d.Name = "foc2"
	if err := g.Save(&d).Error; err != nil {
		t.Error(err)
	}
	if err := g.Clauses(clause.OnConflict{Columns: []clause.Column{{Name: "name"}}, UpdateAll: true}).Create(&Doc{Name: "foc2", Views: 9}).Error; err != nil {
		t.Errorf("upsert: %v", err)
	}
	err = g.Transaction(func(tx *gorm.DB) error {
		if err := tx.Create(&Doc{Name: "a"}).Error; err != nil {
			return err
		}
		tx.SavePoint("sp1")
		tx.Create(&Doc{Name: "b"})
		if err := tx.RollbackTo("sp1").Error; err != nil {
			return err
		}
		_ = tx.Transaction(func(tx *gorm.DB) error { tx.Create(&Doc{Name: "c"}); return fmt.Errorf("undo") })
		return tx.Transaction(func(tx *gorm.DB) error { return tx.Create(&Doc{Name: "e"}).Error })
	})
	if err != nil {
		t.Errorf("tx: %v", err)
	}
	var names []string
	if err := g.Model(&Doc{}).Order("name").Pluck("name", &names).Error; err != nil || fmt.Sprint(names) != "[a e foc2]" {
		t.Errorf("%v %v", names, err)
	}
	rows, err := g.Model(&Doc{}).Rows()
	if err != nil {
		t.Fatal(err)
	}
	k := 0
	for rows.Next() {
		var d Doc
		if err := g.ScanRows(rows, &d); err != nil {
			t.Error(err)
		}
		k++
	}
	if err := rows.Close(); err != nil || k != 3 {
		t.Error(err, k)
	}
	if err := g.Delete(&d).Error; err != nil {
		t.Error(err)
	}
	var n int64
	if err := g.Model(&Doc{}).Count(&n).Error; err != nil || n != 2 {
		t.Error(n, err)
	}
	if err := g.Unscoped().Model(&Doc{}).Count(&n).Error; err != nil || n != 3 {
		t.Error(n, err)
	}
	p := g.Session(&gorm.Session{PrepareStmt: true})
	for range 3 {
		if err := p.Model(&Doc{}).Where("views >= ?", 0).Count(&n).Error; err != nil {
			t.Error(err)
		}
		if err := p.Model(&Doc{}).Where("name = ?", "a").Update("views", 8).Error; err != nil {
			t.Error(err)
		}
		if err := p.Transaction(func(tx *gorm.DB) error {
			return tx.Model(&Doc{}).Where("name = ?", "a").Update("views", 8).Error
		}); err != nil {
			t.Error(err)
		}
	}
	if err := g.Connection(func(tx *gorm.DB) error { return tx.Model(&Doc{}).Count(&n).Error }); err != nil {
		t.Error(err)
	}
}

// The caller's word counts.
func TestOptions(t *testing.T) {
	t.Parallel()
	g := setup(t)
	for range 10 {
		var replica bool
		if err := g.WithContext(sqldb.Read(ormtest.Client(t), db.Strong())).Model(&Doc{}).Select("pg_is_in_recovery()").Limit(1).Scan(&replica).Error; err != nil || replica {
			t.Fatalf("a strong read on a replica: %t, %v", replica, err)
		}
	}
}

func TestPlainMigrate(t *testing.T) {
	t.Parallel()
	router := ormtest.Router(t)
	g, err := gorm.Open(postgres.New(postgres.Config{Conn: sqldb.Open(router)}), &gorm.Config{Logger: logger.Discard})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := g.AutoMigrate(&Doc{}, &Note{}); err != nil {
			t.Errorf("AutoMigrate %d on plain sqldb.Open: %v", i, err)
		}
	}
}
