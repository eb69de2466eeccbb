package withgorm_test

import (
	"errors"
	"testing"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"

	"github.com/loadlinehq/loadline/db"
	"github.com/loadlinehq/loadline/examples/orm/ormtest"
	"github.com/loadlinehq/loadline/examples/orm/withgorm"
)

type Account struct {
	ID   int64
	Name string
	Tags []Tag
}

type Tag struct {
	ID        int64
	AccountID int64
	Text      string
}

func TestGORM(t *testing.T) {
	t.Parallel()
	router := ormtest.Router(t)
	g, err := withgorm.Open(router)
	if err != nil {
		t.Fatal(err)
	}
	g.Logger = logger.Discard // the errors are provoked
	if err := g.AutoMigrate(&Account{}, &Tag{}); err != nil {
		t.Fatal(err)
	}
	replicas := 0
	for range 20 {
		mine := g.WithContext(ormtest.Client(t))
		account := Account{Name: "ann", Tags: []Tag{{Text: "a"}, {Text: "b"}}}
		if err := mine.Create(&account).Error; err != nil {
			t.Fatal(err)
		}
		if err := mine.Model(&account).Update("name", "eve").Error; err != nil {
			t.Fatal(err)
		}
		var found Account
		if err := mine.Preload("Tags").First(&found, account.ID).Error; err != nil || found.Name != "eve" || len(found.Tags) != 2 {
			t.Errorf("%+v, %v", found, err)
		}
		var replica bool
		if err := mine.Model(&Account{}).Select("pg_is_in_recovery()").Limit(1).Scan(&replica).Error; err != nil {
			t.Error(err)
		}
		if replica {
			replicas++
		}
		if err := mine.Clauses(clause.Locking{Strength: "UPDATE"}).First(&found, account.ID).Error; err != nil {
			t.Errorf("for update: %v", err)
		}
		var n int
		if err := mine.Raw("UPDATE accounts SET name = 'dan' WHERE id = ? RETURNING 1", account.ID).Scan(&n).Error; err != nil || n != 1 {
			t.Errorf("raw: %d, %v", n, err)
		}
		errUndo := errors.New("undo")
		err := mine.Transaction(func(tx *gorm.DB) error {
			if err := tx.Select("Tags").Delete(&account).Error; err != nil {
				return err
			}
			if err := tx.First(&found, account.ID).Error; !errors.Is(err, gorm.ErrRecordNotFound) {
				t.Errorf("a transaction does not see what it deleted: %v", err)
			}
			return errUndo
		})
		if !errors.Is(err, errUndo) {
			t.Error(err)
		}
		if err := mine.First(&found, account.ID).Error; err != nil || found.Name != "dan" {
			t.Errorf("%+v, %v", found, err)
		}
	}
	if replicas == 0 {
		t.Error("no query was on a replica")
	}
	if err := g.WithContext(ormtest.Client(t)).Model(&Account{}).Select("nextval('accounts_id_seq')").Limit(1).Scan(new(int64)).Error; !errors.Is(err, db.ErrReadOnly) {
		t.Errorf("a query that writes: %v", err)
	}
}
