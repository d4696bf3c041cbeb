"""The example's pages: the list, and what its buttons do."""

from django.urls import path

from payments import views

app_name = "payments"
urlpatterns = [
    path("", views.customers, name="customers"),
    path("collect/<int:customer_id>/", views.collect, name="collect"),
    path(
        "collect-without-lock/<int:customer_id>/",
        views.collect_without_lock,
        name="collect-without-lock",
    ),
    path("reset/", views.reset, name="reset"),
    path("reset/<int:customer_id>/", views.reset, name="reset"),
]
